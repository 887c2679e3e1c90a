"""The report: history of backups and proofs, figures, one HTML page, metrics."""
