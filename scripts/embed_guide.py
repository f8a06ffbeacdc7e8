"""`inbatch embed-guide` from a checkout: python scripts/embed_guide.py experiment=demo."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("embed-guide")
