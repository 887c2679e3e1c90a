"""The order of the steps of each run, as Prefect flows."""
