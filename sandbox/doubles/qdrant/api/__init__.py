"""The HTTP API: its routes, requests and answers."""
