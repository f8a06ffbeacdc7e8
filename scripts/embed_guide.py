"""Embed a run's texts ahead of it: python scripts/embed_guide.py experiment=... (as for training)."""

from inbatch.embed_guide import main

if __name__ == "__main__":
    main()
