"""PostgreSQL's WAL in the bucket, beside the backups: names and signatures, coverage, objects."""
