"""Verdicts of verifications: signed, numbered, append-only."""
