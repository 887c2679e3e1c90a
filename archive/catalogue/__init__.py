"""Which backups the bucket holds, and what can be believed about them."""
