"""Where each rank leaves its results for rank 0; nobody waits without an end.

A store, not collectives: it tells who has not answered, works before a process group does and where it
does not, and needs nothing of a device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from torch.distributed import Store

from inbatch.doctor.result import Result

_LOOK_S = 0.02


class Board:
    """The entries of all ranks, by kind, number of the check, and rank.

    Args:
        store: of all ranks; this board's own connection.
        rank: of this process.
        world_size: number of ranks.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        self._rank, self._world_size = rank, world_size

    def post(self, number: int, results: Sequence[Result]) -> None:
        """Leave the results of this rank."""
        content = json.dumps([asdict(result) for result in results])
        self._store.set(f"results/{number}/{self._rank}", content)

    def read(self, number: int, rank: int) -> list[Result] | None:
        """The results of a rank; None while there are none."""
        key = f"results/{number}/{rank}"
        if not self._store.check([key]):
            return None
        return [Result(**fields) for fields in json.loads(self._store.get(key))]

    def collect(self, number: int) -> dict[int, list[Result]]:
        """Wait for the results of all ranks; `watch.Watch` ends the process if one never comes."""
        found: dict[int, list[Result]] = {}

        def complete() -> bool:
            for rank in set(range(self._world_size)) - found.keys():
                results = self.read(number, rank)
                if results is not None:
                    found[rank] = results
            return len(found) == self._world_size

        _until(complete)
        return dict(sorted(found.items()))

    def mark(self, kind: str, number: int, rank: int | None = None) -> None:
        """Leave a mark, such as that the next check may begin; the rank's own by default."""
        self._store.set(f"{kind}/{number}/{self._rank if rank is None else rank}", "1")

    def is_marked(self, kind: str, number: int, rank: int) -> bool:
        """Whether a rank has left a mark."""
        return bool(self._store.check([f"{kind}/{number}/{rank}"]))

    def wait_for_mark(self, kind: str, number: int, rank: int) -> None:
        """Wait for a mark."""
        _until(lambda: self.is_marked(kind, number, rank))


def _until(reached: Callable[[], bool]) -> None:
    while not reached():
        time.sleep(_LOOK_S)
