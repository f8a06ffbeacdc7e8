"""`inbatch evaluate` from a checkout: python scripts/evaluate.py encoder.model=MODEL data.eval=FILE."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("evaluate")
