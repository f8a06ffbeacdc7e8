"""Embed a run's texts ahead of it: python scripts/embed_guide.py experiment=... (as for training)."""

from inbatch.commands import embed_guide

if __name__ == "__main__":
    embed_guide()
