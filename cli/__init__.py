"""The `isa` command: arguments, output, exit codes; nothing else."""
