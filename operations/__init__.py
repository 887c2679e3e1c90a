"""Use cases over several parts, in plain Python: plan, preflight, deploy, status, render."""
