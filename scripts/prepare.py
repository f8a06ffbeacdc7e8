"""Turn data into shards: python scripts/prepare.py data.train=FILE prepare.output=DIR prepare.workers=4."""

from inbatch.commands import prepare

if __name__ == "__main__":
    prepare()
