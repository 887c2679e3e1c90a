"""Streams of bytes: counted and hashed, buffered on disk, unpacked."""
