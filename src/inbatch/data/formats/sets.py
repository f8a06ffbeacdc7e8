"""Sets of texts that mean the same: ``{"set": [str, str, ...]}``, or ``{"set": {"query", "pos", "neg"}}``.

https://huggingface.co/datasets/sentence-transformers/embedding-training-data
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from inbatch.data.formats.base import BadRecordError, Head, Row, fields_of, shown, text_of, texts_of


@final
@dataclass(frozen=True)
class Sets:
    """A list is one row: its first text is the query, all others are its positives.

    A set of named parts has a query, positives (pos) and negatives (neg).
    """

    joined = ""

    def recognise(self, head: Head) -> str:
        """By the column set."""
        if head.has("set") and head.holds("set", list, dict):
            named = head.holds("set", dict)
            rule = "query, pos and neg" if named else "a query, then its positives"
            return f"its records have a set: {rule}"
        return ""

    def row(self, record: Any) -> Row:
        """The row of a record."""
        record = fields_of(record)
        value = record.get("set")
        if isinstance(value, Mapping):
            return Row(
                text_of(value.get("query"), "query of its set"),
                texts_of(value.get("pos"), "pos of its set"),
                texts_of(value.get("neg"), "neg of its set"),
            )
        if not isinstance(value, list | None):
            raise BadRecordError(f"has {shown(value)} as its set", "give a list of texts")
        texts = texts_of(value, "the texts of its set") or [""]
        return Row(texts[0], texts[1:], [])
