"""`inbatch doctor` from a checkout: torchrun --nproc-per-node=2 scripts/doctor.py."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("doctor")
