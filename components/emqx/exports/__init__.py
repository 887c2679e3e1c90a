"""EMQX's data export: the archive, its configuration and its tables."""
