"""Checks the rows of a table, whether they have lists or not."""

from __future__ import annotations

from typing import NamedTuple

import datasets
import numpy as np

from inbatch.data.sources.checks import Choice, Place, kept_rows
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.dropped import Dropped
from inbatch.data.sources.list_checks import checked_lists
from inbatch.data.sources.lists import with_lists


class Checked(NamedTuple):
    """The rows of a table that can be used."""

    dataset: datasets.Dataset
    roles: Roles  # those of lists among them
    keep: np.ndarray | None  # numbers of the rows, rising; None for all of `dataset`
    dropped: tuple[Dropped, ...]  # by reason
    num_dropped_texts: int  # of lists


def checked(
    dataset: datasets.Dataset, roles: Roles, *, place: Place, on_empty: Choice, on_bad_row: Choice
) -> Checked:
    """The rows that can be used; finds lists, and counts what is dropped.

    Args:
        dataset: The rows.
        roles: Of its columns.
        place: Of the rows, for messages.
        on_empty, on_bad_row: See `Source`.

    Raises:
        ConfigError: See `kept_rows` and `checked_lists`.
    """
    if not roles.lists:
        # Under on_bad_row a row without negatives is a row; on_empty alone leaves out every null.
        nulls = on_empty == "error" or on_bad_row == "drop"
        roles = with_lists(dataset.data.table, roles, nulls=nulls)
    choices = {"on_empty": on_empty, "on_bad_row": on_bad_row}
    if roles.lists:
        lists = checked_lists(dataset, roles, place=place, **choices)
        return Checked(lists.dataset, roles, None, lists.dropped, lists.dropped_texts)
    keep, dropped = kept_rows(dataset, roles, place=place, **choices)
    return Checked(dataset, roles, keep, dropped, 0)
