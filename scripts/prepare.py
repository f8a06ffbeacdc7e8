"""Turn data into shards: python scripts/prepare.py data.train=FILE prepare.output=DIR prepare.workers=4."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("prepare")
