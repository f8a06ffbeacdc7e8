"""Embed a run's texts ahead of it: python scripts/embed_guide.py experiment=... (as for training)."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("embed-guide")
