"""Compiles the emulated devices, once for each version of their source, of torch and of the compiler.

Ten seconds of one core. The library lies in the user's cache, so that workers, runs and checkouts share it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

_SOURCES = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".h", ".cpp"))
_TORCH = Path(torch.__file__).parent
_OPTIONS = ("-O0", "-shared", "-fPIC", "-std=c++20")


def library() -> Path:
    """The compiled library. Where there is no compiler the test is skipped, or fails under CI."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        message = "there is no C++ compiler: install g++ to run CUDA code on emulated devices"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inbatch-tests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"emulated_cuda-{_key(compiler)}.so"
    with (folder / f"{path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _compile(compiler, path)
    return path


def _key(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + torch.__version__.encode() + " ".join(_OPTIONS).encode())
    for source in _SOURCES:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    include = _TORCH / "include"
    line = [compiler, *_OPTIONS]
    line += [str(source) for source in _SOURCES if source.suffix == ".cpp"]
    line += [
        "-isystem",
        str(include),
        "-isystem",
        str(include / "torch" / "csrc" / "api" / "include"),
    ]
    line += [f"-L{_TORCH / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch", "-o", str(unfinished)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unfinished.replace(path)
