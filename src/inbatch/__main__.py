"""`python -m inbatch key=value ...` trains, as `inbatch-train` does."""

from inbatch.commands import train

if __name__ == "__main__":
    train()
