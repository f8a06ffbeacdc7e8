"""The processes of a command that only embeds, as what fills a store takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from inbatch.cluster.lease import hold
from inbatch.console import make_console, print_plain
from inbatch.gather import largest
from inbatch.guide import Process
from inbatch.strategies import World
from inbatch.strategies.fabric import launched


def start_ranks(world: World) -> Process:
    """Start the processes of a world, unless a launcher has; each goes on from here with its own."""
    fabric = launched(world)
    console = make_console()
    return Process(
        device=fabric.device,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        barrier=fabric.barrier,
        most=partial(largest, device=fabric.device),
        say=lambda line: print_plain(line, console=console) if fabric.is_global_zero else None,
    )


@contextmanager
def held_folder(folder: Path, process: Process) -> Iterator[None]:
    """Hold the folder of the results for the block; rank 0 does, for all ranks.

    The other ranks must not write before a barrier within the block, and all end with one.

    Raises:
        ConfigError: another command writes there.
    """
    if process.rank:
        yield
        return
    with hold(folder / "run.lease"):
        yield
