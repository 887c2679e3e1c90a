"""PostgreSQL HA."""
