"""Thin Prefect tasks: names, retries, artifacts. Below this layer nothing knows Prefect."""
