"""One stream: its snapshot, its messages, its consumers."""
