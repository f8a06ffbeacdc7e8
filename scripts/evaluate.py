"""Evaluate a saved model: python scripts/evaluate.py encoder.model=MODEL data.eval=FILE (see --help)."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("evaluate")
