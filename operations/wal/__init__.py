"""WAL between two backups: the service that streams it, what its holder notes, what is stored and what is wrong."""
