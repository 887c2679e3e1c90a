"""The order of the steps of each run, as Prefect flows; and the API calls that start and follow the runs."""
