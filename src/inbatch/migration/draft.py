"""An experiment while it is put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from inbatch.migration.facts import Unknown


class Draft:
    """Files of groups, settings by dotted key, and what could not be carried over."""

    def __init__(self) -> None:
        self.choices: dict[str, str | None] = {}  # group: file, or null
        self.settings: dict[str, Any] = {}  # nested
        self.comments: dict[str, str] = {}  # by dotted key
        self.notes: list[str] = []
        self.idle: list[str] = []  # what changes no result here
        self.needs: dict[str, str] = {}  # keys that the command line must give: what of

    def choose(self, group: str, name: str | None) -> None:
        """Take a file of a group."""
        self.choices[group] = name

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Set a key; a value that only running the source could tell becomes a note."""
        if isinstance(value, Unknown):
            self.note(f"{key}: {value.text} is only known where the script runs")
            return
        *folders, name = key.split(".")
        node = self.settings
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = plain(value)
        if comment:
            self.comments[key] = comment

    def get(self, key: str) -> Any:
        """What a key is set to, None where it is not."""
        node: Any = self.settings
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    def note(self, text: str) -> None:
        """Tell once that something was not carried over."""
        if text not in self.notes:
            self.notes.append(text)


def plain(value: Any) -> Any:
    """A value as YAML holds it."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return value


def number(value: Any) -> float | int | None:
    """A finite number, also as a text ("5e-05", "1,000"); None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    try:
        read = float(str(value).replace(",", "").replace("_", ""))
    except ValueError:
        return None
    if not math.isfinite(read):
        return None
    return int(read) if read.is_integer() and "e" not in str(value).lower() else read


def word(value: Any) -> str:
    """A name as the enumerations of sentence-transformers and transformers write it: the value, small."""
    return str(value).rpartition(".")[2].strip().strip("'\"<>").lower()
