"""What peers do together: consensus, replication, reads."""
