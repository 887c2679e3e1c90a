"""Programs on the machine beside the nodes."""
