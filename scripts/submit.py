"""`inbatch submit` from a checkout: python scripts/submit.py experiment=demo slurm.nodes=4."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("submit")
