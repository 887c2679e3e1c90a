"""Kubernetes and Helm: processes, API client, releases, drift, Leases and Secrets. Knows no engine and no Prefect."""
