"""Follows PostgreSQL's WAL into the bucket: replication slots, pg_receivewal, its spool, what is stored of it."""
