"""Verifications: a backup is restored into scratch engines and compared with its source."""
