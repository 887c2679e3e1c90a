"""Thin Prefect tasks: names, retries, artifacts. No layer below this one imports Prefect."""
