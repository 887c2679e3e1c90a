"""What a live restore does to masters: fence, limits, functions; and why it would be refused."""
