"""Which rows form which global batch, on every rank alike."""
