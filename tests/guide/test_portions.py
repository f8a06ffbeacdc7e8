"""The portions of a run: each batch of the first epoch in one of them, and the first ones small."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from inbatch.guide.portions import Portion, portions_of_run


def _rows(start: int, stop: int) -> dict[str, np.ndarray]:
    return {"rows": np.arange(start, stop)}


def _batches(portions: tuple[Portion, ...]) -> list[list[int] | None]:
    found = [None if p.rows is None else list(p.rows()["rows"]) for p in portions]
    for portion, batches in zip(portions, found):
        assert batches is None or batches[0] == portion.start
    return found


@pytest.mark.parametrize(
    ("num_batches", "sizes", "beyond"),
    [(inf, [3, 3, 6, 8], True), (20, [3, 3, 6, 8], False), (21, [3, 3, 6, 8], True),
     (13, [3, 3, 6, 1], False), (6, [3, 3], False), (2, [2], False)],
)  # fmt: skip
def test_each_portion_is_as_large_as_all_before(
    num_batches: float, sizes: list[int], beyond: bool
) -> None:
    portions = portions_of_run(_rows, planned=20, num_batches=num_batches, first=3)
    *parts, last = _batches(portions)
    if beyond:  # rows that no batch of the first epoch had
        assert last is None
        assert portions[-1].start == 20
    else:
        parts.append(last)
    assert [len(part or ()) for part in parts] == sizes
    assert [batch for part in parts for batch in part or ()] == list(range(sum(sizes)))


@pytest.mark.parametrize("num_batches", [20, 21, inf])
def test_a_small_run_has_all_rows_at_once(num_batches: float) -> None:
    assert portions_of_run(_rows, planned=20, num_batches=num_batches, first=20) == (Portion(),)
