"""One JSON array a line: ``["query", "positive"]`` or ``["query", "positive", "negative", ...]``.

https://huggingface.co/datasets/sentence-transformers/embedding-training-data
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from inbatch.data.formats.base import BadRecordError, Head, Row, shown, texts_of


@final
@dataclass(frozen=True)
class Arrays:
    """Lines of a query, a positive, and any number of negatives."""

    joined = ""

    def recognise(self, head: Head) -> str:
        """By a first record that is a list."""
        if head.records and isinstance(head.records[0], list):
            return "its lines are lists: a query, a positive, then negatives"
        return ""

    def row(self, record: Any) -> Row:
        """The row of a record."""
        if not isinstance(record, list):
            raise BadRecordError(
                f"holds {shown(record)}", "give a list of texts, as the others are"
            )
        texts = texts_of(record, "its texts") or [""]
        return Row(texts[0], texts[1:2], texts[2:])
