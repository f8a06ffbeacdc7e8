"""Compiles the emulated devices, once for each version of their source, of torch and of the compiler.

Ten seconds of one core. The library lies in the user's cache, so that workers, runs and checkouts share it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest
import torch

_HERE = Path(__file__).parent
_TORCH = Path(torch.__file__).parent
_OPTIONS = ("-O0", "-shared", "-fPIC", "-std=c++20")


def library() -> Path:
    """The compiled library. Where it cannot be compiled the test is skipped, or fails under CI."""
    if torch.version.cuda is not None:
        _cannot("this torch is built with CUDA: install its CPU build, or use a GPU")
    if sys.platform != "linux":
        _cannot("they are written for Linux")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        _cannot("there is no C++ compiler: install g++, or name one in CXX")
    path, errors = _built(compiler)
    assert not errors, errors
    return path


def _cannot(reason: str) -> NoReturn:
    message = f"CUDA devices cannot be emulated: {reason}"
    if os.environ.get("CI") and not torch.cuda.is_available():
        pytest.fail(message)
    pytest.skip(message)


@cache
def _built(compiler: str) -> tuple[Path, str]:
    """The library, and what the compiler has to say if there is none."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inbatch-tests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"emulated_cuda-{_key(compiler)}.so"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return path, "" if path.exists() else _compile(compiler, path)


def _key(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + f"{torch.__version__} {_OPTIONS}".encode())
    for source in sorted([*_HERE.glob("*.h"), *_HERE.glob("*.cpp")]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: str, path: Path) -> str:
    unfinished, include = path.with_suffix(".unfinished"), _TORCH / "include"
    line = [compiler, *_OPTIONS, str(_HERE / "emulated_cuda.cpp"), "-o", str(unfinished)]
    for folder in (include, include / "torch" / "csrc" / "api" / "include"):
        line += ["-isystem", str(folder)]
    line += [f"-L{_TORCH / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        return done.stderr
    unfinished.replace(path)
    return ""
