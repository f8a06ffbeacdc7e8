"""Freed memory is used again without the system's help."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# A step in small: activations of 4 MiB, and for each chunk the gradient of an embedding table of 48 MiB.
SCRIPT = """
import resource, sys, torch
from inbatch.device.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    kept = [torch.ones(2**20) for _ in range(16)]
    grad = torch.zeros(12 * 2**20)
    for _ in range(4):
        grad.add_(torch.ones(12 * 2**20))
    return sum(float(tensor[0]) for tensor in kept)
for _ in range(6):  # the heap takes its shape
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is not glibc")
def test_a_later_step_faults_no_pages() -> None:
    faults = {}
    for mode in ("keep", "default"):
        command = [sys.executable, "-c", SCRIPT, mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert faults["keep"] < faults["default"] / 10
