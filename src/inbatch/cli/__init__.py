"""Commands: Hydra and argparse live here, and nothing below imports it."""
