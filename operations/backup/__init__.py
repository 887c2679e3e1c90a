"""Backups of one component and of all, and which backups may be deleted."""
