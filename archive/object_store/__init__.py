"""A bucket of any S3 server."""
