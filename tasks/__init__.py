"""Thin Prefect tasks: names, retries, cancellation. No layer below this one imports Prefect."""
