"""Replaces databases of a server in use."""
