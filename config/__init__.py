"""Typed settings: what they are (`models`) and where they come from (`loading`)."""
