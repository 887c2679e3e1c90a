"""A restore into the live platform, behind a fence and a backup of the current data."""
