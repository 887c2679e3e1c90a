"""What runs the engines: Secrets, Helm's records, settings, Prefect's database."""
