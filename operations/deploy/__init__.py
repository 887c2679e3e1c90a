"""A deploy: plan, preflight, and each node brought to its declared state."""
