"""Sessions: their settings, their errors, and the proxies that clients go through."""
