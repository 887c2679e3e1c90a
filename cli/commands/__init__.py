"""The commands of `isa`, in the groups of `isa --help`; and what all of them share."""
