"""Collects pairs of ids from lines, as numbers of texts; ids without a text are counted or refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import numpy as np

from inbatch.data.formats.base import BadRecordError, IdRequest, Tally
from inbatch.data.formats.id_files import bad_line
from inbatch.data.formats.id_rows import Pairs, join_pairs
from inbatch.data.formats.text_index import TextIndex
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.errors import ConfigError

_BLOCK = 1 << 16  # pairs that are looked up at a time


@final
class PairCollector:
    """Pairs of a query and a document from one file.

    Args:
        queries, corpus: the texts.
        path: the file, for messages.
        request: whether ids without a text, or with an empty one, are refused or counted.
        tally: counts what is left out.
    """

    def __init__(
        self,
        queries: TextIndex,
        corpus: TextIndex,
        *,
        path: str,
        request: IdRequest,
        tally: Tally,
    ) -> None:
        self._queries, self._corpus = queries, corpus
        self._path, self._request, self._tally = path, request, tally
        self._waiting: list[tuple[int, str, str, bool, float]] = []
        self._parts: list[Pairs] = []

    def add(
        self, line: int, query: str, document: str, *, positive: bool, score: float = np.nan
    ) -> None:
        """Take a pair; a score of NaN is none."""
        self._waiting.append((line, query, document, positive, score))
        if len(self._waiting) == _BLOCK:
            self._look_up()

    def pairs(self) -> Pairs:
        """All pairs whose texts are there; scores where each pair has one.

        Raises:
            ConfigError: An id without a text, unless such pairs are counted.
        """
        self._look_up()
        return join_pairs(self._parts)

    def _look_up(self) -> None:
        lines, queries, documents, positive, scores = (
            zip(*self._waiting) if self._waiting else [()] * 5
        )
        queries_P, documents_P = self._queries.numbers(queries), self._corpus.numbers(documents)
        kept_P = np.ones(len(lines), dtype=bool)
        for what, ids, index, numbers_P in (
            ("query", queries, self._queries, queries_P),
            ("document", documents, self._corpus, documents_P),
        ):
            kept_P &= self._known(what, ids, lines, numbers_P, index, kept_P)
        self._parts.append(
            Pairs(
                queries_P[kept_P],
                documents_P[kept_P],
                np.array(positive, dtype=bool)[kept_P],
                np.array(scores, dtype=np.float32)[kept_P],  # NaN where there is none
            )
        )
        self._waiting.clear()

    def _known(
        self,
        what: str,
        ids: Sequence[str],
        lines: Sequence[int],
        numbers_P: np.ndarray,
        index: TextIndex,
        kept_P: np.ndarray,
    ) -> np.ndarray:
        """Mark the pairs of which this id has a text that is not empty."""
        absent_P = numbers_P < 0
        empty_P = ~absent_P & index.empty[numbers_P] if index.num_texts else np.zeros_like(absent_P)
        for wrong_P, name, key, choice in (
            (absent_P, "without a text", "on_bad_row", self._request.on_bad_row),
            (empty_P, "with an empty text", "on_empty", self._request.on_empty),
        ):
            for place in np.flatnonzero(wrong_P & kept_P).tolist():
                line = lines[place]
                if choice == "error":
                    raise self._refusal(f"{what} {ids[place]!r} {name}", key, line)
                self._tally.add(
                    f"of a {what} {name}", partial("{}, line {}".format, self._path, line)
                )
        return ~absent_P & ~empty_P

    def _refusal(self, subject: str, key: str, line: int) -> ConfigError:
        field = self._request.field
        fix = f"give it one, or set {to_set(field, f'{key}=drop')} to leave such lines out"
        error = BadRecordError(f"names the {subject}", fix)
        return bad_line(error, self._path, line, field=path_key(field))
