"""What happens in which order, as Prefect flows; and the API calls that start and follow them."""
