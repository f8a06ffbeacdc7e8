"""`python -m inbatch key=value ...` trains, as `inbatch-train` does."""

from inbatch.train import main

if __name__ == "__main__":
    main()
