"""Backups: one component, a whole night, and what may be deleted from the bucket."""
