"""The data of the demo, generated."""
