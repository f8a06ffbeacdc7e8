"""What the benchmarks beside sentence-transformers share: processes, clocks, memory, environment."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

MIB = 2**20


def in_process(script: str, args: argparse.Namespace, *, tuned_malloc: bool = False) -> Any:
    """Run a script again in a process of its own, with `args` as JSON; returns its last line."""
    tuned = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
    environ = {**os.environ, **(tuned if tuned_malloc else {})}
    command = [sys.executable, script, "--worker", json.dumps(vars(args))]
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def start_peak(device: str) -> Callable[[], float]:
    """Returns what gives the peak of memory since now, above what is held now, in MiB.

    Resident memory of the process on a CPU (Linux), torch's allocations on a GPU.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        return lambda: (torch.cuda.max_memory_allocated() - held) / MIB
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident
    resident = _status_mib("VmRSS")
    return lambda: _status_mib("VmHWM") - resident


def wait(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def environment(args: argparse.Namespace) -> str:
    """Date, device and versions in one line."""
    where = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{platform.machine()} CPU, {args.threads} thread(s)"
    )
    malloc = ", malloc tuned" if args.tuned_malloc else ""
    names = ("torch", "transformers", "sentence-transformers")
    return f"{date.today()}: {where}{malloc}; {', '.join(f'{n} {version(n)}' for n in names)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all of them have."""
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tuned-malloc", action="store_true", help="glibc keeps freed memory")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def _status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
