"""`inbatch train` from a checkout: python scripts/train.py experiment=demo."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("train")
