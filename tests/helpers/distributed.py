"""Run a plain function on several real gloo ranks and re-raise the first failure."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import socket
import tempfile
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

# Some for each worker, below those that the system hands out; others for another run of the tests beside it.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST_PORT = 20_000 + 500 * ((4 * os.getppid() + _WORKER) % 24)
_PORTS = cycle(range(_FIRST_PORT, _FIRST_PORT + 500))


def run(
    fn: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout_s: float = 240.0,
    context: BaseContext | None = None,
) -> list[Any]:
    """Call ``fn(rank, world_size, *args)`` on every rank; return the results in rank order.

    The ranks are forked, so they share what the test process has imported, or come from `context`. Each sees
    the variables that torchrun would set, unless it is alone; `fn` starts the process group itself (`gloo`
    below) or leaves it to Lightning.
    """
    make: Any = context or get_context("fork")
    alone = context is None  # else a rank may start workers, as a daemon may not
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        ranks = [
            make.Process(target=_rank, args=(fn, r, world_size, port, folder, args), daemon=alone)
            for r in range(world_size)
        ]
        for process in ranks:
            process.start()
        failures = _join(ranks, folder, timeout_s)
        if failures:
            raise AssertionError("\n".join(failures))
        return [pickle.loads((Path(folder) / f"{r}.ok").read_bytes()) for r in range(world_size)]


def gloo() -> None:
    """Start the default process group from the variables that `run` has set."""
    torch.distributed.init_process_group("gloo")


def bare_trainer(world_size: int, **options: Any) -> Trainer:
    """Lightning's trainer on CPUs, with nothing around the steps that is not asked for."""
    quiet = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_model_summary": False, "enable_progress_bar": False}
    strategy = "ddp" if world_size > 1 else "auto"
    return Trainer(accelerator="cpu", devices=world_size, strategy=strategy, **{**quiet, **options})


def free_port() -> int:
    """A TCP port that nothing listens on now, and that no other worker of the tests is given.

    One that the system chose would be free again until a rank listens on it: ranks of two tests met there.
    """
    while True:
        port = next(_PORTS)
        with closing(socket.socket()) as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def _rank(
    fn: Callable[..., Any], rank: int, world_size: int, port: int, folder: str, args: Any
) -> None:
    if world_size > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            LOCAL_WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            GROUP_RANK="0",
            TORCHELASTIC_RUN_ID="test",
            GLOO_SOCKET_IFNAME="lo",
        )
    torch.set_num_threads(1)
    gc.freeze()  # what the parent has imported is never garbage
    faulthandler.enable((Path(folder) / f"{rank}.crash").open("w"))
    try:
        result = fn(rank, world_size, *args)
        (Path(folder) / f"{rank}.ok").write_bytes(pickle.dumps(result))
    except BaseException:
        (Path(folder) / f"{rank}.error").write_text(traceback.format_exc())
    finally:
        os._exit(
            0
        )  # no interpreter shutdown: forked copies of the parent's state must not clean up


def _join(ranks: list[Any], folder: str, timeout_s: float) -> list[str]:
    """Wait for all ranks; once one has failed the others get a short while, then are killed."""
    import time

    deadline, late = time.monotonic() + timeout_s, ""
    while any(process.is_alive() for process in ranks):
        failed = list(Path(folder).glob("*.error"))
        if failed:
            deadline = min(deadline, time.monotonic() + 5)
        if time.monotonic() > deadline:
            late = "killed by the test, it was late. "
            for process in ranks:
                process.kill()
            break
        time.sleep(0.02)
    texts = [
        f"rank {path.stem}: {path.read_text()}" for path in sorted(Path(folder).glob("*.error"))
    ]
    for rank, process in enumerate(ranks):
        if any((Path(folder) / f"{rank}.{end}").exists() for end in ("ok", "error")):
            continue
        process.join()
        crash = Path(folder) / f"{rank}.crash"
        stack = crash.read_text() if crash.exists() else ""
        texts.append(
            f"rank {rank} ended without a result, exit code {process.exitcode}: {late}{stack}"
        )
    return texts
