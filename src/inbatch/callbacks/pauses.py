"""Training pauses while a callback evaluates or saves; callbacks that time or show a run are told.

Used as::

    with pause(trainer, "evaluate") as results:
        results["eval/sts_spearman"] = ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lightning.pytorch import Trainer


class PauseWatcher(ABC):
    """A callback that is told of pauses."""

    @abstractmethod
    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Training stops for `name`."""

    @abstractmethod
    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Training goes on; `results` are numbers to show."""


@contextmanager
def pause(trainer: Trainer, name: str) -> Iterator[dict[str, float]]:
    """Around what interrupts training; yields a dict for the results that the user is to see.

    An error inside ends the run, so nothing is resumed after it. Pauses do not nest.
    """
    watchers = [callback for callback in trainer.callbacks if isinstance(callback, PauseWatcher)]  # type: ignore[attr-defined]
    for watcher in watchers:
        watcher.on_pause(trainer, name)
    results: dict[str, float] = {}
    yield results
    for watcher in watchers:
        watcher.on_resume(trainer, name, results)
