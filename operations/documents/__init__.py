"""The JSON that `isa … --json` prints and that flow runs keep: one model each, without the logic that fills it."""
