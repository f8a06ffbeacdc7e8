"""A rank ends with the process that has started it.

Ranks of one machine are started by rank 0. One that outlives it would wait for it for minutes, hold its GPU,
and may meet the ranks of another run at its port. The system's own signal for this (PR_SET_PDEATHSIG) is sent
when the thread ends that has started a process, exists on Linux only, and comes too late for a process whose
parent is gone before it has asked. So a thread looks who the parent is, from before the libraries are
imported; those give Python up wherever they wait.
"""

from __future__ import annotations

import os
import sys
import threading
import time

_STARTED_BY = "INBATCH_STARTED_BY"  # id of the process that rank 0 is
_LOOK_S = 0.5


def start_ranks_from_here() -> None:
    """Have the processes that are started from now on end with this one, see `end_with_first_rank`."""
    os.environ[_STARTED_BY] = str(os.getpid())


def end_with_first_rank() -> None:
    """End this process as soon as rank 0 is gone, if rank 0 has started it."""
    parent = os.environ.pop(_STARTED_BY, None)  # not for processes that this one starts
    if parent is not None and os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    # Where rank 0 ends by itself it ends this process before, so this is the only word on it.
    rank = os.environ["LOCAL_RANK"]
    print(f"error: rank 0 was killed, so rank {rank} ends as well", file=sys.stderr, flush=True)
    os._exit(1)
