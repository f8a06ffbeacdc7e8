"""Runs a plain function in a process that has CUDA devices which are the CPU.

    from helpers.emulated_cuda.process import on_gpu

    def peak(rows: int) -> int:  # of the module, so that the process can import it
        torch.zeros(rows, 128, device="cuda")
        return torch.cuda.max_memory_allocated()

    def test_peak() -> None:
        assert on_gpu(peak, 4) == 2048

Such a device is like a GPU of compute capability 9.0 with 16 GiB, whose memory is the host's and whose
operators run on the CPU's kernels, at once. It has of a GPU what code can get wrong unseen on a CPU:

- tensors of two devices do not mix;
- memory runs out, at `torch.ops.emulated_cuda.set_cap(device, bytes)`;
- each device draws random numbers of its own;
- `torch.cuda.set_sync_debug_mode("error")` refuses operators that make the host wait, copies from and to
  pageable memory among them; `torch.ops.emulated_cuda.waits()` counts them, `kernels()` all operators;
- page-locked memory that a copy goes to without waiting holds NaN until an event behind the copy has been
  waited for;
- flash attention takes what torch's kernel takes, and products of 16-bit matrices sum in float32.

It has no streams, which are one, no NCCL, whose place gloo takes, no compiled code and no GPU's rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context, set_start_method
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from helpers import distributed
from helpers.emulated_cuda.library import library

TESTS = Path(__file__).parents[2]
#: Tests of one group run on one worker, which holds the process that they are forked from.
group = pytest.mark.xdist_group("emulated_cuda")


def on_gpu(fn: Callable[..., Any], *args: Any, timeout_s: float = 240.0) -> Any:
    """The result of ``fn(*args)`` in a process of its own that sees one device, or the failure."""
    return distributed.run(_alone, 1, fn, args, timeout_s=timeout_s, context=_context())[0]


def on_gpus(
    fn: Callable[..., Any], world_size: int, *args: Any, timeout_s: float = 240.0
) -> list[Any]:
    """The results of ``fn(rank, world_size, *args)`` on ranks with a device each; see `distributed.run`."""
    return distributed.run(_rank, world_size, fn, args, timeout_s=timeout_s, context=_context())


def _alone(rank: int, world_size: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return _rank(rank, world_size, lambda *_: fn(*args), ())


def _rank(rank: int, world_size: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    from helpers.emulated_cuda import preload  # loaded already, unless that has failed

    preload.torch_cuda.show(world_size)
    set_start_method("fork", force=True)  # of workers, as on Linux; not that of this process
    return fn(rank, world_size, *args)


@cache
def _context() -> ForkServerContext:
    """Forks processes from one that has loaded the devices and has not used them."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["helpers.emulated_cuda.preload"])
    modules = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INBATCH_EMULATED_CUDA", str(library()))
        patch.setenv("PYTHONPATH", modules)
        context.Process(target=os.getpid).start()
    return context
