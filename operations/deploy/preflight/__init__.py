"""Everything that can fail, checked before the first change."""
