"""Pauses training while a callback evaluates or saves, and tells the callbacks that time or show a run.

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
        """Training pauses for `name`."""

    @abstractmethod
    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Training continues; `results` are numbers to show."""


@contextmanager
def pause(trainer: Trainer, name: str) -> Iterator[dict[str, float]]:
    """Pause training for the block; yields a dict for the results to show to the user.

    An error inside ends the run, so nothing resumes after it. Pauses do not nest.
    """
    watchers = [callback for callback in trainer.callbacks if isinstance(callback, PauseWatcher)]  # type: ignore[attr-defined]
    for watcher in watchers:
        watcher.on_pause(trainer, name)
    results: dict[str, float] = {}
    yield results
    for watcher in watchers:
        watcher.on_resume(trainer, name, results)
