"""Objects with all their versions."""
