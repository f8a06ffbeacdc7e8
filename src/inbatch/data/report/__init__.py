"""The data report: counts, lengths and warnings."""
