"""One global batch, without Lightning."""
