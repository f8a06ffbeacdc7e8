"""ms-swift: ``{"messages": [..], "positive_messages": [[..]], "negative_messages": [[..]], "label": 0.8}``.

A message is ``{"role": "user", "content": str}``. https://swift.readthedocs.io/en/latest/BestPractices/Embedding.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from inbatch.data.formats.base import (
    BadRecordError,
    Head,
    Row,
    fields_of,
    number_of,
    shown,
    text_of,
)

_MEDIA = ("images", "videos", "audios")


@final
@dataclass(frozen=True)
class Messages:
    """Conversations: one is the query, others the positives and the negatives.

    separator: between the contents of a conversation of several messages.
    """

    separator: str = "\n"
    joined = ""

    def recognise(self, head: Head) -> str:
        """By the columns messages and positive_messages."""
        if head.has("messages", "positive_messages"):
            return "its records have messages and positive_messages"
        return ""

    def row(self, record: Any) -> Row:
        """The row of a record."""
        record = fields_of(record)
        refuse_media(record)
        return Row(
            self._text(record.get("messages"), "messages"),
            self._texts(record.get("positive_messages"), "positive_messages"),
            self._texts(record.get("negative_messages"), "negative_messages"),
            label=number_of(record.get("label"), "label"),
        )

    def _texts(self, value: object, what: str) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise BadRecordError(
                f"has {shown(value)} as {what}", "give a list of lists of messages"
            )
        return [self._text(item, what) for item in value]

    def _text(self, value: object, what: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, Sequence) or isinstance(value, str):
            is_one = "a single message" if isinstance(value, Mapping) else shown(value)
            raise BadRecordError(
                f"has {is_one} where {what} needs a list of messages",
                "write it as [{role: user, content: TEXT}]",
            )
        contents = []
        for message in value:
            if not isinstance(message, Mapping):
                raise BadRecordError(
                    f"has {shown(message)} in {what}", "give objects with a role and a content"
                )
            contents.append(text_of(message.get("content"), f"content in {what}"))
        return self.separator.join(contents)


def refuse_media(record: Mapping[str, Any]) -> None:
    """Refuse a record with images, videos or sounds, of which ms-swift's formats may have some.

    Raises:
        BadRecordError: It has one.
    """
    for name, value in record.items():
        if value and name.removeprefix("positive_").removeprefix("negative_") in _MEDIA:
            raise BadRecordError(f"has {name}, and only texts are embedded", "remove that record")
