"""The configuration that a user writes: the schema, its checks, and objects from it."""
