"""The state that an interrupted run leaves on its Lease: restore, rebuild, number of verdicts."""
