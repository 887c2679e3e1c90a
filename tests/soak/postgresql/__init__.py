"""PostgreSQL under repmgr behind Pgpool on real nodes, with production's values."""
