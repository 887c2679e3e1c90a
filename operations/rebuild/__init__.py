"""A rebuild of a component, after a verified backup and an approval."""
