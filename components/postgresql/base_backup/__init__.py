"""The files of the cluster: which node they come from, held still while they are read, and checked."""
