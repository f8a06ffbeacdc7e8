"""`inbatch embed` from a checkout: python scripts/embed.py encoder=minilm data.texts=corpus.jsonl."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("embed")
