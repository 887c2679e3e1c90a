"""Which backups and orphaned objects may be removed."""
