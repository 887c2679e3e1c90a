"""Use cases over several parts, in plain Python, in the order of their packages: each imports only earlier ones."""
