"""What a check is given, and what it returns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed import Store

from inbatch.strategies.failed_rank import lost_rank

_LONGEST = 160  # characters of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """This process and what it runs on.

    device: where it computes.
    asked: the user has named the device, so that it need not be the best one there is.
    rank, world_size, local_rank: which of how many processes; the last counts on its node.
    ranks_here: processes on its node.
    output_dir: the folder whose storage is measured.
    timeout_s: seconds for which ranks wait for each other.
    store: of all ranks, for their process group.
    """

    device: torch.device
    asked: bool = False
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    ranks_here: int = 1
    output_dir: Path = Path()
    timeout_s: float = 60.0
    store: Store | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    name: of what was looked at.
    value: what was found, in few words.
    holds: None where there is nothing to judge, as for what cannot run on this device.
    sentence: what is wrong and what to do about it, without a final period; empty where it holds.
    data: merged into doctor.json.
    same: what to do if ranks have different values; empty where they may.
    """

    name: str
    value: str
    holds: bool | None = True
    sentence: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    same: str = ""


class Check(NamedTuple):
    """A function of the machine, and the heading that its results stand under."""

    section: str
    run: Callable[[Machine], Iterable[Result]]

    @property
    def name(self) -> str:
        """In words."""
        return self.run.__name__.replace("_", " ")


def judged(name: str, value: str, sentence: str, **more: Any) -> Result:
    """A result that holds unless there is a sentence against it."""
    return Result(name, value, holds=not sentence, sentence=sentence, **more)


def one_line(error: Exception) -> str:
    """Its message, or as much of it as fits two lines."""
    return textwrap.shorten(str(error), _LONGEST, placeholder=" ...") or "no reason given"


def perform(check: Check, machine: Machine) -> list[Result]:
    """Run a check; where it raises, what it found so far and a failed result."""
    return list(attempt(check.name, lambda: check.run(machine)))


def attempt(name: str, look: Callable[[], Iterable[Result]]) -> Iterator[Result]:
    """Yield results; an error that they raise becomes a failed one, after which a check may go on."""
    try:
        yield from look()
    except Exception as error:
        sentence = f"the check of {name} fails with {type(error).__name__}: {one_line(error)}"
        if lost_rank(error) is not None:  # addresses differ, and say nothing
            sentence = f"another rank was lost in the check of {name}"
        yield Result(name, "failed", holds=False, sentence=sentence)
