"""Freed memory is used again without the system's help."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from inbatch.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def allocate():
    return [torch.ones(2**24) for _ in range(2)]  # 64 MiB each, more than glibc ever learns to keep
for _ in range(2):  # the heap takes its shape
    allocate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    allocate()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is not glibc")
def test_tensors_of_the_next_step_fault_no_pages() -> None:
    faults = {}
    for mode in ("keep", "default"):
        command = [sys.executable, "-c", SCRIPT, mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    pages = 4 * 2 * 2**26 // resource.getpagesize()
    assert faults["keep"] < pages / 10
    assert faults["default"] > pages / 2
