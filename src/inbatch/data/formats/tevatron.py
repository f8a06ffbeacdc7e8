"""tevatron: ``{"query": str, "positive_passages": [{"title", "text"}], "negative_passages": [...]}``.

https://huggingface.co/datasets/Tevatron/msmarco-passage
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from inbatch.data.formats.base import BadRecordError, Head, Row, fields_of, shown, text_of
from inbatch.data.formats.passages import TITLE_AND_TEXT, check_template, passage_text


@final
@dataclass(frozen=True)
class Tevatron:
    """Queries with passages of several fields.

    template: the text of a passage; by default title and text with a space between, as tevatron has it.
    """

    template: str = TITLE_AND_TEXT
    joined = ""

    def __post_init__(self) -> None:
        check_template(self.template)

    def recognise(self, head: Head) -> str:
        """By the column positive_passages."""
        if head.has("query", "positive_passages"):
            return f"its records have positive_passages, whose text is '{self.template}'"
        return ""

    def row(self, record: Any) -> Row:
        """The row of a record."""
        record = fields_of(record)
        return Row(
            text_of(record.get("query"), "query"),
            self._passages(record.get("positive_passages"), "positive_passages"),
            self._passages(record.get("negative_passages"), "negative_passages"),
        )

    def _passages(self, value: object, what: str) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise BadRecordError(f"has {shown(value)} as {what}", "give a list of passages")
        return [self._passage(each, what) for each in value]

    def _passage(self, value: object, what: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, Mapping):
            raise BadRecordError(
                f"has {shown(value)} in {what}", "give objects with a title and a text"
            )
        return passage_text(self.template, value, f"a passage of {what}")
