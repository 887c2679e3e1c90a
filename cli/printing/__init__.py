"""What `isa` prints: lines, tables, JSON, logs, failures."""
