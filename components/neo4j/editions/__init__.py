"""Backups of the two editions: Enterprise online, Community offline."""
