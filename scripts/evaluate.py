"""Evaluate a saved model: python scripts/evaluate.py encoder.model=MODEL data.eval=FILE (see --help)."""

from inbatch.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
