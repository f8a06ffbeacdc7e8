"""Submit a run to Slurm: python scripts/submit.py experiment=demo slurm.nodes=4 slurm.gpus_per_node=8."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("submit")
