"""A user's package with a part of each kind, which nothing of inbatch names."""
