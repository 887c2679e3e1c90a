"""Verify and restore: test backups, restore them, rebuild components."""
