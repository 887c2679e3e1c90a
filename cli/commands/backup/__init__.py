"""Back up: take backups, list them, remove old ones."""
