"""What `inbatch inspect` tells about training data beside the data report: roles, samplers, rows, advice."""
