"""Object storage: where backups live."""
