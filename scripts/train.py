"""Train a bi-encoder: python scripts/train.py experiment=demo (every key of conf/train.yaml can be set)."""

from inbatch.train import main

if __name__ == "__main__":
    main()
