"""Runs as Kubernetes Jobs on real nodes, in the worker image."""
