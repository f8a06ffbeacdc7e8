"""`python -m inbatch COMMAND ...` is `inbatch COMMAND ...`."""

from inbatch.cli.main import main

if __name__ == "__main__":
    main()
