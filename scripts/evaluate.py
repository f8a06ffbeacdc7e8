"""Evaluate a saved model: python scripts/evaluate.py MODEL --similarity FILE (see --help)."""

from inbatch.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
