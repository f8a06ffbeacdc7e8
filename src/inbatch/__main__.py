"""`python -m inbatch key=value ...` trains, as `inbatch-train` does."""

from inbatch.cli.start import run

if __name__ == "__main__":
    run("train")
