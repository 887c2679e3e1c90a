"""What a run that was interrupted left on its Lease: restore, rebuild, number of verdicts."""
