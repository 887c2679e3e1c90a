"""Compares declared objects with live ones, and finds who owns a field."""
