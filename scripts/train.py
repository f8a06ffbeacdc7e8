"""Train a bi-encoder: python scripts/train.py experiment=demo (every key of conf/train.yaml can be set)."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("train")
