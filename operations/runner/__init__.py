"""Walks a graph of work: threads, retries, progress and transfer rates."""
