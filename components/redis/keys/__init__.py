"""Keys with their values: read from RDB files, copied from server to server, compared."""
