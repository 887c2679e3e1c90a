"""Requests to the Prefect server: what it should have, what it has, runs started and followed."""
