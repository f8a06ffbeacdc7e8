"""What the data looks like."""
