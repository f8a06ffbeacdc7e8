"""A format of a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inbatch.data.formats.base import Head, Row, fields_of, text_of


@dataclass(frozen=True)
class Questions:
    """``{"ask": "..", "reply": ".."}``; `mark` ends each question."""

    mark: str = ""
    joined = False

    def recognise(self, head: Head) -> str:
        """By its two names."""
        return "it asks and replies" if head.has("ask", "reply") else ""

    def row(self, record: Any) -> Row:
        """A question and its reply."""
        record = fields_of(record)
        question = text_of(record.get("ask"), "ask") + self.mark
        return Row(question, [text_of(record.get("reply"), "reply")], [])
