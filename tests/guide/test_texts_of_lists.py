"""A store embeds the texts of rows with lists: which they are, by role, and where they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.ragged_batches import Rows, make_rows
from inbatch.data.hashing import hash_texts
from inbatch.data.ragged import RaggedValues
from inbatch.guide import missing as missing_texts
from inbatch.guide.missing import SourceColumn, find_missing, keys_to_check
from inbatch.guide.store import Table


@dataclass
class _Documents:
    queries: list[str]
    documents: list[str]


@dataclass
class _Lists:
    """Lists of a source, as `Source.ragged` gives them."""

    rows: Rows

    def hashes(self) -> RaggedValues:
        texts = [[q, *p, *n] for q, p, n in self.rows]
        offsets = np.concatenate([[0], np.cumsum(list(map(len, texts)))])
        return RaggedValues(hash_texts([t for of_row in texts for t in of_row]), offsets)

    def positive_counts(self) -> np.ndarray:
        return np.array([len(p) for _, p, _ in self.rows], dtype=np.int32)

    def read(self, rows: np.ndarray) -> _Documents:
        chosen = [self.rows[i] for i in rows]
        return _Documents([q for q, _, _ in chosen], [t for _, p, n in chosen for t in (*p, *n)])


@dataclass
class _Source:
    ragged: _Lists
    num_rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_rows = len(self.ragged.rows)


@pytest.mark.parametrize("block_rows", [1, 4, 1 << 18])
def test_texts_of_each_role_and_their_rows(
    block_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_texts, "_BLOCK_ROWS", block_rows)
    rows = make_rows(9)
    source: Any = _Source(_Lists(rows))
    by_role = [[[q] for q, _, _ in rows], [p for _, p, _ in rows], [n for _, _, n in rows]]
    for chosen in (None, np.array([4, 0, 7]), np.arange(0)):
        for number, lists in enumerate(by_role):
            column = SourceColumn(source, number, chosen)
            numbers = range(9) if chosen is None else chosen.tolist()
            wanted = [(i, text) for i in numbers for text in lists[i]]
            hashes, found = map(np.concatenate, zip(*column.blocks()))
            np.testing.assert_array_equal(hashes, hash_texts([text for _, text in wanted]))
            assert (hashes.dtype, found.dtype) == (np.uint64, np.int64)
            np.testing.assert_array_equal(found, [i for i, _ in wanted])
            assert column.num_texts == len(wanted)
    columns = [SourceColumn(source, number) for number in range(3)]
    assert len(keys_to_check(columns)) == sum(len(p) + len(n) + 1 for _, p, n in rows)
    monkeypatch.setattr(missing_texts, "CHECKED_TEXTS", 20)
    stride = -(-sum(column.num_texts for column in columns) // 20)
    spaced = [[text for i in range(0, 9, stride) for text in texts[i]] for texts in by_role]
    keys = hash_texts([text for texts in spaced for text in texts])
    np.testing.assert_array_equal(keys_to_check(columns), keys)
    missing = find_missing(columns, Table(tmp_path, 8, "float32"))
    assert sorted(missing.read()) == sorted({t for q, p, n in rows for t in (q, *p, *n)})
