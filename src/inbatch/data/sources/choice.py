"""Which documents of a row's lists a batch gets. Shape letters: B rows, M chosen documents.

What is drawn is a function of (seed, source, epoch, row), so that planners, ranks, workers and resumed runs
agree without a word. A list of n has the order ``pi(x) = (a x + b) mod n``, a and b by hash of the row and
without a common divisor of a and n; epoch e takes k places from ``pi(e k)`` on. They are distinct inside an
epoch, and after any number of epochs the uses of any two texts of a list differ by one at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np

from inbatch.data.plan.permutation import derive_key, keyed_hash
from inbatch.data.ragged import spans
from inbatch.data.sources.config_keys import to_set
from inbatch.errors import ConfigError, did_you_mean

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Draw(NamedTuple):
    """What decides the documents that are drawn, besides the row."""

    seed: int
    epoch: int  # number of the plan


class Picks(NamedTuple):
    """Chosen documents of B rows, row by row, positives first.

    places: int64 [M], place of each among all documents of its row (positives, then negatives).
    counts, positives: int64 [B], how many documents and positives each row has.
    """

    places: np.ndarray
    counts: np.ndarray
    positives: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ListChoice:
    """How many documents of each row a batch gets, and which.

    max_negatives: most negatives of a row; None for all.
    negatives: "first" takes the first ones, "sample" other ones in each epoch.
    positives: "all", "first", or "sample" for one that differs from epoch to epoch.
    """

    max_negatives: int | None = None
    negatives: Literal["first", "sample"] = "first"
    positives: Literal["all", "sample", "first"] = "all"

    def counts(self, positives_B: np.ndarray, negatives_B: np.ndarray) -> Sequence[np.ndarray]:
        """Positives and negatives that a batch gets of rows that have so many; the same in every epoch."""
        if self.positives != "all":
            positives_B = np.minimum(positives_B, 1)
        if self.max_negatives is not None:
            negatives_B = np.minimum(negatives_B, self.max_negatives)
        return positives_B, negatives_B

    def pick(
        self,
        rows_B: np.ndarray,
        positives_B: np.ndarray,
        negatives_B: np.ndarray,
        *,
        source: str,
        draw: Draw,
    ) -> Picks:
        """The documents of these rows in an epoch.

        Args:
            rows_B: numbers of the rows in their source.
            positives_B, negatives_B: documents that each row has.
            source: name of the source.
            draw: seed and epoch.
        """
        kept_P, kept_N = self.counts(positives_B, negatives_B)
        places_P, places_N = spans(0, kept_P), spans(0, kept_N)
        if self.positives == "sample":
            key = derive_key(draw.seed, source, "positive")
            places_P = _drawn(rows_B, positives_B, 1, key=key, epoch=draw.epoch)
        if self.negatives == "sample" and self.max_negatives is not None:
            key = derive_key(draw.seed, source, "negative")
            places_N = _drawn(rows_B, negatives_B, self.max_negatives, key=key, epoch=draw.epoch)
        places_N = places_N + np.repeat(positives_B, kept_N)  # negatives come behind the positives
        kept_B = kept_P + kept_N
        starts_B = np.cumsum(kept_B) - kept_B
        places_M = np.empty(len(places_P) + len(places_N), dtype=np.int64)
        places_M[spans(starts_B, kept_P)] = places_P
        places_M[spans(starts_B + kept_P, kept_N)] = places_N
        return Picks(places_M, kept_B, kept_P)


def check_choice(choice: ListChoice, *, field: str) -> None:
    """Check the values of a choice.

    Args:
        choice: as configured.
        field: key of the source.

    Raises:
        ConfigError: A value that it cannot have, or `negatives` without a number to choose.
    """
    for key, known in (
        ("negatives", ("first", "sample")),
        ("positives", ("all", "sample", "first")),
    ):
        value = getattr(choice, key)
        if value not in known:
            hint = f"set {', '.join(known[:-1])} or {known[-1]}"
            if not isinstance(value, str) or not did_you_mean(value, known):
                hint += f", or name the column as {to_set(field, f'columns.{key}')}"
            raise ConfigError(
                f"{field}.{key}", "is no choice from the lists of a row", hint, value=value
            )
    most = choice.max_negatives
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
        raise ConfigError(
            f"{field}.max_negatives",
            "is not a whole number of at least 0",
            "set one, or null for all negatives",
            value=most,
        )
    if choice.negatives == "sample" and most is None:
        raise ConfigError(
            f"{field}.negatives",
            "needs the number to draw",
            f"set {to_set(field, 'max_negatives=4')}",
            value="sample",
        )


def check_no_choice(choice: ListChoice, *, field: str) -> None:
    """Check that nothing is set that only rows with lists have.

    Args:
        choice: as configured, of a source without lists.
        field: key of the source.

    Raises:
        ConfigError: Documents are chosen.
    """
    for key, default in asdict(ListChoice()).items():
        if (value := getattr(choice, key)) != default:
            raise ConfigError(
                f"{field}.{key}",
                "is for lists of documents, and no column holds lists",
                "remove it",
                value=value,
            )


def _drawn(
    rows_B: np.ndarray, sizes_B: np.ndarray, most: int, *, key: int, epoch: int
) -> np.ndarray:
    """Places of min(most, n) of the n texts of each row, see the module's docstring."""
    hashes_B = keyed_hash(rows_B.astype(np.uint64), key=key)
    n_B = np.maximum(sizes_B, 1)
    shift_B = ((hashes_B >> _HALF) * n_B.astype(np.uint64) >> _HALF).astype(np.int64)
    room_B = np.maximum(n_B - 1, 1).astype(np.uint64)
    factor_B = 1 + ((hashes_B & _LOW) * room_B >> _HALF).astype(np.int64)
    wrong = np.flatnonzero(np.gcd(factor_B, n_B) != 1)
    while len(wrong):  # ends, since n - 1 and n have no common divisor
        factor_B[wrong] = factor_B[wrong] % (n_B[wrong] - 1) + 1
        wrong = wrong[np.gcd(factor_B[wrong], n_B[wrong]) != 1]
    kept_B = np.minimum(sizes_B, most)
    n_M, factor_M, shift_M = (np.repeat(each, kept_B) for each in (n_B, factor_B, shift_B))
    return (factor_M * ((epoch * most + spans(0, kept_B)) % n_M) + shift_M) % n_M
