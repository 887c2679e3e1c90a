"""Typed settings: their models (`models`) and their sources (`loading`)."""
