"""Slurm: job scripts, requests to stop, requeueing."""
