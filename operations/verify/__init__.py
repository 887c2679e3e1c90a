"""Restore proofs: a set is restored into scratch engines and compared with its source."""
