"""Tests that are marked `gpu` run on an emulated device, so that they do not rot where there is no GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.emulated_cuda.process import group, on_gpu

pytestmark = group

ROOT = Path(__file__).parents[2]
# What needs a real one: Triton's kernels, a stream that is busy, hundreds of draws of the kernel's dropout.
NOT_HERE = "not test_triton and not test_pending_max and not test_dropout_of_the_kernel"


def run_marked(files: list[str]) -> int:
    os.chdir(ROOT)
    marked = ["-m", "gpu and not slow", "-k", NOT_HERE, "-p", "no:xdist", "--assert=plain"]
    return int(pytest.main([*marked, *files]))


def test_tests_marked_gpu() -> None:
    files = [str(f) for f in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in f.read_text()]
    assert len(files) > 3
    assert on_gpu(run_marked, files) == pytest.ExitCode.OK
