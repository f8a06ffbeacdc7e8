"""Compute capabilities of GPUs."""

#: Of the first GPUs (Ampere) with tensor cores for bfloat16 and TF32, for which flash attention and the
#: Triton kernels are made.
AMPERE = (8, 0)
