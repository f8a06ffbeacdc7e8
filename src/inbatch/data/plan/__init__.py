"""The plan of global batches, the same on every rank."""
