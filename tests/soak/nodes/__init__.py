"""What only real nodes can show."""
