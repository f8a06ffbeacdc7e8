"""Columns of texts, or of lists of texts: query, positive, negative and their common names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from inbatch.data.formats.base import Head


@final
@dataclass(frozen=True)
class Columns:
    """A table whose columns are found by common names, or named in `columns`.

    Positives and negatives may be lists, as in data sets of sentence-transformers.
    """

    def recognise(self, head: Head) -> str:
        """Never: it is what data without another format are."""
        return ""

    def prompt_column(self, names: Sequence[str]) -> str | None:
        """None."""
        return None
