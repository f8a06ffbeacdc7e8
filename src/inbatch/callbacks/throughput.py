"""The speed of a run: rates over the last steps, and the clock that measures them.

Rows are counted over all ranks, tokens and memory for one rank (one device); `StepLog` adds up the
tokens of all ranks.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from inbatch.device import rates
from inbatch.step.report import StepReport

GIB = 2**30
WINDOW_STEPS = 50  # over which rates are taken


@dataclass(frozen=True, slots=True)
class StepCost:
    """Time and work of one step."""

    seconds: float
    num_rows: int  # over all ranks
    num_tokens: int  # real tokens of this rank
    num_padded_tokens: int  # computed tokens of this rank
    phases: Mapping[str, float]  # seconds


def throughput(costs: Sequence[StepCost]) -> dict[str, float]:
    """Rates over some steps: the sum of what they did by the sum of their seconds.

    Returns:
        ``perf/samples_per_s`` (rows, all ranks), ``perf/tokens_per_s`` (real tokens, this rank),
        ``perf/padding_share`` of the computed tokens, and ``perf/time_share_<phase>``.
    """
    seconds = sum(cost.seconds for cost in costs)
    computed = sum(cost.num_padded_tokens for cost in costs)
    if seconds <= 0.0 or computed == 0:
        return {}
    real = sum(cost.num_tokens for cost in costs)
    phases = sorted({name for cost in costs for name in cost.phases})
    shares = {name: sum(cost.phases.get(name, 0.0) for cost in costs) / seconds for name in phases}
    return {
        "perf/samples_per_s": sum(cost.num_rows for cost in costs) / seconds,
        "perf/tokens_per_s": real / seconds,
        "perf/padding_share": 1.0 - real / computed,
        **{f"perf/time_share_{name}": share for name, share in shares.items()},
    }


def model_flop_utilization(
    *, num_parameters: int, tokens_per_s: float, peak_flop_per_s: float
) -> float:
    """Share of a device's rate of matrix products that the model's own arithmetic uses.

    ``6 * parameters * tokens / s / rate``: per parameter and token 2 operations forward, 4 back.
    Attention scores, padding and the second forward of gradient caching do not count.
    """
    return 6.0 * num_parameters * tokens_per_s / peak_flop_per_s


@cache
def matmul_flop_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """The rate of `device/rates.py`, measured once in a process, in a short while: the first step waits."""
    return rates.matmul_flop_per_s(device, dtype, budget_s=0.05)


def product_dtype(precision: str | None) -> torch.dtype:
    """The dtype of matrix products under one of Lightning's precisions."""
    bits = str(precision).partition("-")[0]
    by_bits = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
    return by_bits.get(bits, torch.float32)


def peak_memory_gib(device: torch.device) -> float:
    """Highest memory so far: torch's on a CUDA device, this process's resident memory elsewhere.

    Without the pages of files that are mapped now, on Linux: the system takes those back where it needs them.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    if sys.platform == "linux":  # not ru_maxrss, which a process takes over from its parent
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
        return (int(kib["VmHWM"]) - int(kib.get("RssFile", 0))) * 1024 / GIB
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024) / GIB


class ThroughputMeter:
    """`throughput` over a sliding window of steps."""

    def __init__(
        self,
        *,
        num_parameters: int | None = None,
        peak_flop_per_s: float | None = None,
    ) -> None:
        """Given `num_parameters` (no embeddings) and the device's peak, adds ``perf/mfu``."""
        self._costs: deque[StepCost] = deque(maxlen=WINDOW_STEPS)
        self._num_parameters = num_parameters
        self._peak_flop_per_s = peak_flop_per_s

    def add(self, report: StepReport, *, seconds: float) -> None:
        """Count one step."""
        self._costs.append(
            StepCost(
                seconds, report.num_rows, report.num_tokens, report.num_padded_tokens, report.phases
            )
        )

    def metrics(self) -> dict[str, float]:
        """The rates of the window; empty before the first step."""
        rates = throughput(self._costs)
        if rates and self._num_parameters is not None and self._peak_flop_per_s is not None:
            rates["perf/mfu"] = model_flop_utilization(
                num_parameters=self._num_parameters,
                tokens_per_s=rates["perf/tokens_per_s"],
                peak_flop_per_s=self._peak_flop_per_s,
            )
        return rates


class StepClock:
    """Seconds from step to step, data loading included, pauses (evaluation) left out."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.start()

    def start(self) -> None:
        """Begin a lap."""
        self._lap_start = self._now()
        self._paused_at: float | None = None

    def elapsed(self) -> float:
        """Seconds since the last lap or start; the lap continues."""
        return self._now() - self._lap_start

    def pause(self) -> None:
        """Stop until `resume`."""
        self._paused_at = self._now()

    def resume(self) -> float:
        """Continue the lap, and return the length of the pause in seconds."""
        if self._paused_at is None:
            raise RuntimeError("resume without pause")
        paused = self._now() - self._paused_at
        self._lap_start += paused
        self._paused_at = None
        return paused

    def lap(self) -> float:
        """Seconds since the last lap or start."""
        now = self._now()
        seconds = now - self._lap_start
        self._lap_start = now
        return seconds
