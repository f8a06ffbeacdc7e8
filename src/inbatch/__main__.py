"""`python -m inbatch key=value ...` trains, as `inbatch-train` does."""

from inbatch.commands import run

if __name__ == "__main__":
    run("train")
