"""Archives: an append-only set of parts. Plan, seal, read, verify, collect."""
