"""What a user may write: the schema, its checks, and what is built from it."""
