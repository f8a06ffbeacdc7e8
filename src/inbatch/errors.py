"""The error for a user's mistake, and the sentence that it prints."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class ConfigError(ValueError):
    """A mistake in a configuration, a data file, a checkpoint or the way a run was started.

    Commands print it as one sentence, ``key=value problem: fix``, without a stack trace. Every other
    exception is a defect and keeps its trace.

    Args:
        key: what is wrong, as the user writes it: a dotted key, or a file, a rank, a command.
        problem: what is wrong with it, a predicate that follows the key: "does not divide over 4 ranks".
        fix: what to do, an imperative without a final period: "set 8 or 12".
        value: the offending value; left out of the sentence where it says nothing.
    """

    def __init__(self, key: str, problem: str, fix: str, *, value: Any = ...) -> None:
        super().__init__(key, problem, fix)  # pickle passes these on from a worker process
        self.key = key
        self.problem = problem
        self.fix = fix
        self.value = value

    def __str__(self) -> str:
        """The sentence."""
        shown = self.key if self.value is ... else f"{self.key}={in_yaml(self.value)}"
        return f"{shown} {self.problem}: {self.fix}"

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks print in place of a stack trace."""
        return [f"error: {self}"]

    def under(self, key: str) -> ConfigError:
        """Return the same error under the key that the user has written."""
        return type(self)(key, self.problem, self.fix, value=self.value)


def in_yaml(value: Any) -> str:
    """A value on one line, as a YAML file has it; texts in quotes, so that an empty one is seen."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {in_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(in_yaml, value)) + "]"
    return repr(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask ``did you mean 'name'?`` for the nearest known word; an empty string where none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
