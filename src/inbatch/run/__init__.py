"""One training run: checked, built, fitted, and its results written."""
