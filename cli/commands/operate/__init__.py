"""Operate: findings, reports, the Prefect server and its workers."""
