"""ms-swift before its messages: ``{"query": str, "response": str, "rejected_response": [str], "label": 1}``.

https://swift.readthedocs.io/en/v3.8/BestPractices/Embedding.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from inbatch.data.formats.base import Head, Row, fields_of, number_of, text_of, texts_of
from inbatch.data.formats.messages import refuse_media


@final
@dataclass(frozen=True)
class QueryResponse:
    """A query, its positive (response) and negatives (rejected_response)."""

    joined = ""

    def recognise(self, head: Head) -> str:
        """By the columns query and response."""
        if head.has("query", "response"):
            return "its records have query and response"
        return ""

    def row(self, record: Any) -> Row:
        """The row of a record."""
        record = fields_of(record)
        refuse_media(record)
        return Row(
            text_of(record.get("query"), "query"),
            texts_of(record.get("response"), "response"),
            texts_of(record.get("rejected_response"), "rejected_response"),
            label=number_of(record.get("label"), "label"),
        )
