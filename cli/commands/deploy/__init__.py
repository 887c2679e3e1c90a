"""Deploy: plan, apply, watch."""
