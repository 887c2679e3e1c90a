"""Dumps of databases: made, taken apart, and restored with the rights of each owner."""
