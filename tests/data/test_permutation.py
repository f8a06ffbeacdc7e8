"""Shuffles without an array: one to one, well mixed, and readable at any place."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from inbatch.data.plan.permutation import KeyedPermutation, ShuffledRange, derive_key, keyed_hash

SIZES = [1, 2, 3, 7, 100, 4095, 4096, 4097, 5000, 65_535, 65_536, 65_537, 200_003]


@pytest.mark.parametrize("num_rows", SIZES)
def test_is_one_to_one(num_rows: int) -> None:
    rows = KeyedPermutation(num_rows, key=5)(np.arange(num_rows))
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(np.sort(rows), np.arange(num_rows))


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("block_rows", [1, 2, 7, 64])
def test_blocks_are_one_to_one(num_rows: int, block_rows: int) -> None:
    rows = ShuffledRange(num_rows, key=5, block_rows=block_rows).slice(0, num_rows)
    np.testing.assert_array_equal(np.sort(rows), np.arange(num_rows))


@pytest.mark.parametrize("block_rows", [1, 3])
def test_slices_agree_with_the_whole(block_rows: int) -> None:
    order = ShuffledRange(50_000, key=1, block_rows=block_rows, window_rows=1)
    whole = order.slice(0, 50_000)
    for start, stop in [(0, 1), (12_287, 12_289), (12_000, 40_000), (49_999, 50_000), (7, 7)]:
        np.testing.assert_array_equal(order.slice(start, stop), whole[start:stop])


def test_keys_give_other_orders() -> None:
    orders = [KeyedPermutation(10_000, key)(np.arange(10_000)) for key in range(20)]
    same = [(a == b).sum() for i, a in enumerate(orders) for b in orders[:i]]
    assert 0.5 < np.mean(same) < 1.5  # two independent shuffles agree at one place on average


def test_short_ranges_reach_every_order_equally() -> None:
    counts = dict.fromkeys(permutations(range(4)), 0)
    for key in range(4800):
        counts[tuple(KeyedPermutation(4, derive_key(key))(np.arange(4)).tolist())] += 1
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_squared < 50  # 23 degrees of freedom: p < 0.001


@pytest.mark.parametrize("num_rows", [5000, 1 << 16, 70_000])
def test_mixes_like_a_true_shuffle(num_rows: int) -> None:
    """Standard scores over keys have mean 0 and spread 1, as those of numpy's shuffle."""
    scores = np.array(
        [_scores(KeyedPermutation(num_rows, key)(np.arange(num_rows))) for key in range(60)]
    )
    true = np.random.default_rng(0)
    expected = np.array([_scores(true.permutation(num_rows)) for _ in range(60)])
    assert np.abs(scores.mean(axis=0)).max() < 0.6
    assert np.abs(expected.mean(axis=0)).max() < 0.6
    assert (scores.std(axis=0) < 1.6 * expected.std(axis=0)).all()


def _scores(rows: np.ndarray) -> list[float]:
    """Deviations of an order from chance, in standard deviations."""
    count = len(rows)
    lags = [1, 2, 64, count // 2]
    scores = [np.corrcoef(rows[:-lag], rows[lag:])[0, 1] * (count - lag) ** 0.5 for lag in lags]
    scores.append(np.corrcoef(np.arange(count), rows)[0, 1] * count**0.5)
    distance = (
        np.abs(np.diff(rows)).mean() / count
    )  # mean 1/3, variance 1/18 and neighbours' covariance
    scores.append((distance - 1 / 3) * count**0.5 / 0.25)
    steps = np.bincount(np.diff(rows) % count * 64 // count, minlength=64)
    expected = (count - 1) / 64
    scores.append((((steps - expected) ** 2 / expected).sum() - 63) / 126**0.5)
    return scores


def test_blocks_stay_within_a_window_and_part_inside_it() -> None:
    num_rows, block_rows = 1 << 17, 4
    window = 4096 * block_rows
    rows = ShuffledRange(num_rows, key=3, block_rows=block_rows).slice(0, num_rows)
    place = np.empty(num_rows, dtype=np.int64)
    place[rows] = np.arange(num_rows)
    windows = (place // window).reshape(-1, block_rows)
    assert (windows == windows[:, :1]).all()
    apart = np.abs(np.diff(place.reshape(-1, block_rows)))
    assert abs(apart.mean() / window - 1 / 3) < 0.01
    assert len(np.unique(windows[:100])) == num_rows // window  # neighbouring blocks are far apart


def test_hash_and_key_do_not_depend_on_the_machine() -> None:
    """Golden values: another result would silently change every run's order."""
    assert derive_key(7, "train", 0) == 8583833640476470809
    hashes = keyed_hash(np.arange(2, dtype=np.uint64), key=1)
    assert hashes.tolist() == [9506087726907147786, 4522410275139603566]
    assert KeyedPermutation(10_000, 1)(np.arange(3)).tolist() == [271, 4858, 2778]
    assert KeyedPermutation(10, 1)(np.arange(3)).tolist() == [1, 9, 6]
    assert derive_key(1, "2") != derive_key("1", 2) != derive_key(12)
