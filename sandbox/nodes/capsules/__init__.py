"""A node's walls, and the network between nodes."""
