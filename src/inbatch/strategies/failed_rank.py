"""What a run does when one of its ranks has failed: all end, and only the rank that failed says why."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from torch.distributed import DistNetworkError, DistStoreError

from inbatch.cluster.stop_request import EXIT_INTERRUPTED, GRACE_S
from inbatch.console import record

_LOOK_S = 0.2
_WAIT_S = 30.0  # at the end, for ranks that end too
_OWN_WAIT_S = (
    15.0  # for a rank of this machine to end after its connection; a busy one takes seconds
)
_GLOO = re.compile(r"\[\S*gloo/transport/\S+\] (.*?)(\. |$)", re.DOTALL)
_NCCL = re.compile(r"ncclRemoteError: (.*?)(\. |$)", re.DOTALL)
_ending = threading.Event()  # the ranks end because this process does
_told = threading.Event()
_started: list[subprocess.Popen[bytes]] = []  # ranks 1, 2, ... of this machine


def lost_rank(error: BaseException) -> str | None:
    """What the network has to say, where an error tells no more than that another rank is gone.

    gloo raises a plain RuntimeError, so there is only its text to go by.
    """
    text = str(error)
    if isinstance(error, DistNetworkError | DistStoreError):
        return text.splitlines()[0]
    found = (_GLOO.search(text) or _NCCL.search(text)) if isinstance(error, RuntimeError) else None
    return None if found is None else found[1]


def watch_ranks(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Watch the ranks that this process, rank 0, has started; it ends if one of them fails."""
    _started[:] = processes
    _ending.clear()
    atexit.register(_wait_for_ranks)
    threading.Thread(target=_watch, daemon=True).start()


def kill_ranks() -> None:
    """End the ranks that this process has started, before they notice that it fails and say so."""
    signal_ranks(signal.SIGKILL)


def signal_ranks(number: int) -> None:
    """Have the ranks that this process has started leave with it.

    A Ctrl-C reaches them as SIGTERM: one that still imports its libraries then says nothing.
    """
    _ending.set()
    for process in _started:
        process.send_signal(signal.SIGTERM if number == signal.SIGINT else number)


def is_told() -> bool:
    """Wait for what the first process has to say of a rank that is gone; return whether it has."""
    return _told.wait(_OWN_WAIT_S if _started else GRACE_S)


def _watch() -> None:
    while not _ending.is_set():
        for rank, process in enumerate(_started, 1):
            code = process.poll()
            if code and not _ending.is_set():
                kill_ranks()
                _say(rank, code)
                _told.set()
                time.sleep(GRACE_S)  # for the main thread to end in order
                os._exit(1)
        time.sleep(_LOOK_S)


def _say(rank: int, code: int) -> None:
    if code == EXIT_INTERRUPTED:  # a second Ctrl-C: rank 0 says so
        return
    if code < 0:
        line = f"error: rank {rank} was killed by {signal.Signals(-code).name}, so all ranks end"
    else:
        line = f"error: rank {rank} has failed and says why above, so all ranks end"
    record(line)
    print(line, file=sys.stderr, flush=True)


def _wait_for_ranks() -> None:
    deadline = time.monotonic() + _WAIT_S
    for process in _started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    kill_ranks()
