"""Texts by number, as the rest of this folder reads them: any object with a length and `read`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, final

import xxhash

READ_TEXTS = 16384  # that are in memory at a time where all are gone through


class TextKeys(NamedTuple):
    """Configuration keys of texts and of their columns, for messages."""

    texts: str = "data.texts"
    columns: str = "data.columns"
    id: str = "id"  # the one beside `text`


KEYS = TextKeys()


class Texts(Protocol):
    """N texts, of which a window is read at a time; the same at each reading."""

    def __len__(self) -> int:
        """N."""

    def read(self, start: int, stop: int) -> list[str]:
        """The texts ``start .. stop - 1``."""


@final
class TextList:
    """Texts in memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def read(self, start: int, stop: int) -> list[str]:
        """The texts ``start .. stop - 1``."""
        return list(self._texts[start:stop])


def windows(num_texts: int, size: int = READ_TEXTS) -> Iterator[tuple[int, int]]:
    """Start and stop of each window of so many texts."""
    for start in range(0, num_texts, size):
        yield start, min(start + size, num_texts)


def hash_of(texts: Texts) -> str:
    """128 bits of all texts in their order, as 32 hexadecimal digits; about 1 s for a million."""
    hasher = xxhash.xxh3_128()
    for start, stop in windows(len(texts)):
        encoded = [text.encode() for text in texts.read(start, stop)]
        # With the lengths, since the bytes alone do not tell where a text ends.
        hasher.update(b",".join(b"%d" % len(each) for each in encoded))
        hasher.update(b"".join(encoded))
    return hasher.hexdigest()
