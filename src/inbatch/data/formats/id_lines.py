"""Collects pairs of ids from lines, as numbers of texts; what cannot be used is counted or refused."""

from __future__ import annotations

from functools import partial
from typing import final

import numpy as np

from inbatch.data.formats.base import BadRecordError, IdRequest, Tally
from inbatch.data.formats.id_files import bad_line
from inbatch.data.formats.id_pairs import PairFile, Pairs
from inbatch.data.formats.text_index import TextIndex
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.data.sources.dropped import NO_ROW

_BLOCK = 1 << 16  # pairs that are looked up at a time


@final
class PairCollector:
    """Pairs of a query and a document from files.

    Args:
        queries, corpus: the texts.
        pairs: where they are written.
        request: whether ids without a text, or with an empty one, are refused or counted.
        tally: counts what is left out.
        once: whether lines repeat the positives of their query, so that each is one pair.
    """

    def __init__(
        self,
        queries: TextIndex,
        corpus: TextIndex,
        pairs: PairFile,
        *,
        request: IdRequest,
        tally: Tally,
        once: bool = False,
    ) -> None:
        self._queries, self._corpus, self._pairs = queries, corpus, pairs
        self._request, self._tally, self._once = request, tally, once
        self._path = ""
        self._waiting: list[tuple[int, str, str, bool, float]] = []
        self._told: set[tuple[str, str]] = (
            set()
        )  # positives without a text, where lines repeat them
        self.num_read = 0  # pairs, and lines that hold none

    def open(self, path: str) -> None:
        """Name the file of the pairs that follow; called at the end too."""
        self._look_up()
        self._path = path

    def add(
        self, line: int, query: str, document: str, *, positive: bool, score: float = np.nan
    ) -> None:
        """Take a pair; a score of NaN is none."""
        self._waiting.append((line, query, document, positive, score))
        if len(self._waiting) == _BLOCK:
            self._look_up()

    def leave_out(self, reason: str, line: int) -> None:
        """Count a line that gives no pair."""
        self.num_read += 1
        self._tally.add(reason, partial("{}, line {}".format, self._path, line))

    def refuse(self, error: BadRecordError, line: int) -> None:
        """Count a line that cannot be read, or end the run with it.

        Raises:
            ConfigError: such lines are not to be dropped.
        """
        self._wrong(error, line, key="on_bad_row", reason=NO_ROW)
        self.num_read += 1

    def _wrong(self, error: BadRecordError, line: int, *, key: str, reason: str) -> None:
        field = self._request.field
        choices = {"on_bad_row": self._request.on_bad_row, "on_empty": self._request.on_empty}
        if choices[key] == "error":
            fix = f"{error.fix}, or set {to_set(field, f'{key}=drop')} to leave such lines out"
            full = BadRecordError(error.problem, fix)
            raise bad_line(full, self._path, line, field=path_key(field))
        self._tally.add(reason, partial("{}, line {}".format, self._path, line))

    def _look_up(self) -> None:
        if not self._waiting:
            return
        lines, queries, documents, positive, scores = zip(*self._waiting)
        self._waiting.clear()
        queries_P, documents_P = self._queries.numbers(queries), self._corpus.numbers(documents)
        positive_P = np.array(positive, dtype=bool)
        kept_P = np.ones(len(lines), dtype=bool)
        for what, ids, index, numbers_P in (
            ("query", queries, self._queries, queries_P),
            ("document", documents, self._corpus, documents_P),
        ):
            absent_P = numbers_P < 0
            empty_P = np.zeros_like(absent_P)
            if index.num_texts:
                empty_P = ~absent_P & index.empty[numbers_P]
            for wrong_P, name, key in (
                (absent_P, "without a text", "on_bad_row"),
                (empty_P, "with an empty text", "on_empty"),
            ):
                for place in np.flatnonzero(wrong_P & kept_P).tolist():
                    pair = (queries[place], documents[place])
                    if self._once and positive[place]:
                        if pair in self._told:
                            continue
                        self._told.add(pair)
                    subject = f"{what} {ids[place]!r} {name}"
                    error = BadRecordError(f"names the {subject}", "give it one")
                    self._wrong(error, lines[place], key=key, reason=f"of a {what} {name}")
                    self.num_read += 1
                kept_P &= ~wrong_P
        self.num_read += int(kept_P.sum())
        self._pairs.write(
            Pairs(
                queries_P[kept_P],
                documents_P[kept_P],
                positive_P[kept_P],
                np.array(scores, dtype=np.float32)[kept_P],  # NaN where there is none
            )
        )
