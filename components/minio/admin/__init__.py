"""What the admin API exports and imports: settings of buckets, rights."""
