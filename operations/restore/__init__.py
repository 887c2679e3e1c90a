"""A restore into the live platform, with a fence and a backup of the current data."""
