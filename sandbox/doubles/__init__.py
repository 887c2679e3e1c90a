"""Doubles: servers that no package registry has, answering as the real ones do."""
