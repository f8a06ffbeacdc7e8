"""What a run owes to Slurm: job scripts, stop requests, requeueing."""
