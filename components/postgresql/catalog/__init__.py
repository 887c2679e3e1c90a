"""Roles, rights, properties and settings, read as data and created again."""
