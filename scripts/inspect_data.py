"""`inbatch inspect` from a checkout: python scripts/inspect_data.py data.train=FILE."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("inspect")
