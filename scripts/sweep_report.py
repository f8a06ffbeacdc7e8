"""`inbatch report` from a checkout: python scripts/sweep_report.py multirun/run/2026-01-31_12-00-00."""

from inbatch.cli.main import run

if __name__ == "__main__":
    run("report")
