"""A deploy: plan, preflight, and each node brought to what is declared."""
