"""The ranks as a process group: whether they meet, and how fast and right their collectives are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from inbatch.doctor.result import Machine, Result, judged
from inbatch.gather import max_over_ranks, rank_and_world_size
from inbatch.gather.collectives import all_gather_single, reduce_scatter_single

#: Bytes of the whole tensor: what is reduced, what all have gathered, what is scattered.
SIZES = (2**12, 2**16, 2**20, 2**24, 2**28)
REPEATS = 5
BUDGET_S = 1.0  # that the next size may take, by the time of the one before
MEETING_SHARE = 10  # of timeouts; a collective that hangs is ended by the watch, which says more
_GROWTH = 16
_REMEDY = "run it with NCCL_DEBUG=INFO, and with NCCL_P2P_DISABLE=1 where GPUs of one node err"


class Collective(NamedTuple):
    """One kind: `run` takes the result's tensor and this rank's values; `all_reduce` works in place."""

    run: Callable[[Tensor, Tensor], object]
    gives_part: bool = False  # the result is a part of the whole for each rank
    takes_part: bool = False  # the values are


COLLECTIVES = {
    "all_reduce": Collective(lambda out, values: dist.all_reduce(values)),
    "all_gather": Collective(lambda out, values: all_gather_single(out, values), takes_part=True),
    "reduce_scatter": Collective(
        lambda out, values: reduce_scatter_single(out, values), gives_part=True
    ),
}


def process_group(machine: Machine) -> Iterator[Result]:
    """The ranks meet: gloo on CPUs, NCCL on GPUs."""
    if machine.world_size == 1:
        count = torch.cuda.device_count() if machine.device.type == "cuda" else 1
        how = f"; torchrun --nproc-per-node={count} -m inbatch doctor has all GPUs"
        yield Result("process group", f"one process needs none{how if count > 1 else ''}", None)
        return
    backend = "nccl" if machine.device.type == "cuda" else "gloo"
    start = time.perf_counter()
    dist.init_process_group(
        backend,
        store=machine.store,
        rank=machine.rank,
        world_size=machine.world_size,
        timeout=timedelta(seconds=MEETING_SHARE * machine.timeout_s),
        device_id=machine.device if backend == "nccl" else None,
    )
    max_over_ranks([machine.rank], machine.device)  # the first connects
    seconds = time.perf_counter() - start
    value = f"{machine.world_size} ranks over {backend}, met in {seconds:.1f} s"
    yield Result("process group", value, data={"backend": backend})


def collectives(machine: Machine) -> Iterator[Result]:
    """All-reduce, all-gather and reduce-scatter: their results, and seconds by size of the message."""
    if rank_and_world_size()[1] == 1:
        none: dict[str, Any] = {name: [] for name in COLLECTIVES}
        data = {"rates": {"collectives": none}}
        yield Result("collectives", "not run: there is no process group", None, data=data)
        return
    for name, kind in COLLECTIVES.items():
        right = max_over_ranks([int(not is_right(kind, machine))], machine.device) == [0]
        rows = list(measure(kind, machine)) if right else []
        ends = (rows[0], rows[-1]) if rows else ()
        times = ", ".join(f"{size(row['bytes'])} in {duration(row['seconds'])}" for row in ends)
        sentence = "" if right else f"{name} gives a wrong result: {_REMEDY}"
        data = {"rates": {"collectives": {name: rows}}}
        yield judged(name, times or "wrong result", sentence, data=data)


def is_right(kind: Collective, machine: Machine) -> bool:
    """Compare the result of whole numbers, which have no rounding."""
    part, ranks, rank = 5, machine.world_size, machine.rank
    own = slice(rank * part, (rank + 1) * part)
    total = torch.arange(ranks * part) * (ranks * (ranks + 1) // 2)
    values = torch.arange(part if kind.takes_part else ranks * part) * (rank + 1)
    if kind.takes_part:
        expected = torch.cat([torch.arange(part) * (other + 1) for other in range(ranks)])
    else:
        expected = total[own] if kind.gives_part else total
    out, given = torch.zeros(len(expected)).to(machine.device), values.float().to(machine.device)
    kind.run(out, given)
    found = out if kind.gives_part or kind.takes_part else given
    return torch.equal(found.cpu(), expected.float())


def measure(kind: Collective, machine: Machine) -> Iterator[dict[str, Any]]:
    """Seconds of one collective on the slowest rank, {bytes, ranks, seconds}, while they stay short."""
    for num_bytes in SIZES:
        part = num_bytes // 4 // machine.world_size
        whole = part * machine.world_size
        values = torch.zeros(part if kind.takes_part else whole, device=machine.device)
        out = values.new_zeros(part if kind.gives_part else whole)
        kind.run(out, values)
        max_over_ranks([0], machine.device)  # all begin together, and the device is idle
        start = time.perf_counter()
        for _ in range(REPEATS):
            kind.run(out, values)
        if machine.device.type == "cuda":
            torch.cuda.synchronize(machine.device)
        nanoseconds = int((time.perf_counter() - start) / REPEATS * 1e9)
        seconds = max_over_ranks([nanoseconds], machine.device)[0] / 1e9
        yield {"bytes": num_bytes, "ranks": machine.world_size, "seconds": seconds}
        if _GROWTH * seconds * (REPEATS + 1) > BUDGET_S:
            return


def size(num_bytes: int) -> str:
    """As ``64 KiB``."""
    return f"{num_bytes // 2**20} MiB" if num_bytes >= 2**20 else f"{num_bytes // 2**10} KiB"


def duration(seconds: float) -> str:
    """As ``0.42 ms``."""
    return f"{1e3 * seconds:.3g} ms"
