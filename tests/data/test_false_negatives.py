"""Known false negatives of a batch, against sets of strings."""

from __future__ import annotations

import numpy as np
import pytest

from inbatch.data.hashing import hash_texts
from inbatch.data.ragged import RaggedValues
from inbatch.data.report.false_negatives import (
    LOOKED_AT_ROWS,
    BatchCounts,
    Cells,
    cells_of,
    cells_of_lists,
    count_false_negatives,
    find_examples,
    joined,
)
from inbatch.data.sources.load import Source

Row = tuple[str, list[str], list[str], str]  # query, positives, negatives, key


def by_sets(rows: list[Row]) -> BatchCounts:
    """The definition, written out."""
    documents = [text for _, pos, neg, _ in rows for text in (*pos, *neg)]
    found = with_one = negatives = 0
    for query, positives, _, key in rows:
        own = {query, *positives}
        known = set(own)
        for other_query, other_positives, _, other_key in rows:
            if own & {other_query, *other_positives} or (key and key == other_key):
                known |= {other_query, *other_positives}
        wrong = sum(text in known for text in documents) - len(positives)
        found, with_one = found + wrong, with_one + (wrong > 0)
        negatives += len(documents) - len(positives)
    return BatchCounts(found > 0, len(rows), with_one, negatives, found)


def random_rows(rng: np.random.Generator, *, lists: bool, texts: int, keys: int) -> list[Row]:
    rows = []
    for _ in range(int(rng.integers(1, 12))):
        words = [f"t{n}" for n in rng.integers(0, texts, size=9)]
        positives = int(rng.integers(1, 4)) if lists else 1
        negatives = int(rng.integers(0, 4)) if lists else 2
        key = f"t{rng.integers(0, keys)}" if keys else ""  # which reads as a text does
        rows.append((words[0], words[1 : 1 + positives], words[5 : 5 + negatives], key))
    return rows


def cells(rows: list[Row]) -> RaggedValues:
    texts = [hash_texts([query, *pos, *neg]) for query, pos, neg, _ in rows]
    return RaggedValues(np.concatenate(texts), np.cumsum([0, *map(len, texts)]))


@pytest.mark.parametrize("keys", [0, 3])
@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("texts", [4, 12, 200])
def test_counts_against_sets(texts: int, lists: bool, keys: int) -> None:
    rng = np.random.default_rng(texts + keys + lists)
    for _ in range(40):
        rows = random_rows(rng, lists=lists, texts=texts, keys=keys)
        arguments = (
            cells(rows),
            np.array([len(positives) for _, positives, _, _ in rows]),
            hash_texts([key for *_, key in rows]) if keys else None,
        )
        found = count_false_negatives(cells_of_lists(*arguments), len(rows))
        assert found == by_sets(rows), rows
        check_examples(rows, cells_of_lists(*arguments))


def check_examples(rows: list[Row], found: Cells) -> None:
    """Each row that has a false negative gives one, and it is one."""
    expected = by_sets(rows)
    examples = find_examples(found, len(rows), most=len(rows))
    assert len({row for row, _ in examples}) == len(examples) == expected.num_rows_with
    for row, cell in examples:
        owner = int(found.row_A[cell])
        place = cell - int(np.argmax(found.row_A == owner))
        query, positives, negatives, _ = rows[owner]
        text = [query, *positives, *negatives][place]
        assert place > 0
        assert owner != row or place > len(positives)
        own, key = {rows[row][0], *rows[row][1]}, rows[row][3]
        related = [{q, *p} for q, p, _, k in rows if own & {q, *p} or (key and key == k)]
        assert text in own.union(*related)


def test_columns_of_a_source_are_lists_of_one_length() -> None:
    columns = {
        "query": ["a", "b", "c", "d"],
        "positive": ["x", "y", "z", "x"],
        "negative": ["c", "n", "n", "y"],
        "sku": ["1", "2", "2", "3"],
    }
    source = Source.from_columns("mine", columns, mapping={"key": "sku"})
    rows = np.array([3, 0, 2])
    taken = [{name: values[row] for name, values in columns.items()} for row in rows]
    expected = by_sets([(r["query"], [r["positive"]], [r["negative"]], r["sku"]) for r in taken])
    assert count_false_negatives(cells_of(source, rows), 3) == expected
    assert expected.num_false == 3  # x for rows 3 and 0, and c for the query c


def test_sources_in_one_batch_know_each_other() -> None:
    left = Source.from_columns("left", {"query": ["a", "b"], "positive": ["x", "y"]})
    right = Source.from_columns("right", {"query": ["a", "c"], "positive": ["z", "y"]})
    parts = [cells_of(source, np.arange(2)) for source in (left, right)]
    both = joined(parts, [np.array([0, 2]), np.array([1, 3])])
    rows: list[Row] = [
        *(("a", ["x"], [], ""), ("a", ["z"], [], "")),
        *(("b", ["y"], [], ""), ("c", ["y"], [], "")),
    ]
    assert count_false_negatives(both, 4) == by_sets(rows)


def test_of_a_large_batch_some_rows_are_looked_at_and_all_for_whether_there_is_one() -> None:
    texts = [f"q{n}" for n in range(5000)]
    positives = [f"p{n}" for n in range(4999)] + ["p1"]
    source = Source.from_columns("mine", {"query": texts, "positive": positives})
    found = count_false_negatives(cells_of(source, np.arange(5000)), 5000)
    assert found.any_in_batch
    assert found.num_rows == LOOKED_AT_ROWS
    assert found.num_negatives == LOOKED_AT_ROWS * 4999
