"""How the platform is: readiness gates, status, age of backups and proofs, doctor."""
