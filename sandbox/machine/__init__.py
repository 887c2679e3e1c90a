"""What this machine provides: directories, addresses, programs, daemons."""
