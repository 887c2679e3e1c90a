"""Readiness gates, status, age of backups and verifications, doctor."""
