"""Pods: commands in them, their ports, their volumes; the Jobs of runs."""
