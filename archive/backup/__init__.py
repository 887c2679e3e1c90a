"""One backup: its manifest, its encrypted artefacts, how it is written and read."""
