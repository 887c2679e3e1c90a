"""One collection: created, read and written as snapshots, awaited."""
