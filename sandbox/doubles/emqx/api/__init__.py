"""The management API: its routes, requests and answers."""
