"""A rebuild of a component behind a verified backup and an approval."""
