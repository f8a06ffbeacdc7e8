"""Evaluate a saved model: python scripts/evaluate.py encoder.model=MODEL data.eval=FILE (see --help)."""

from inbatch.commands import evaluate

if __name__ == "__main__":
    evaluate()
