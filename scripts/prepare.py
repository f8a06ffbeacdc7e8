"""`inbatch prepare` from a checkout: python scripts/prepare.py data.train=FILE prepare.output=FOLDER."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("prepare")
