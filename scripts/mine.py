"""`inbatch mine` from a checkout: python scripts/mine.py encoder=minilm data.train=pairs.csv."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("mine")
