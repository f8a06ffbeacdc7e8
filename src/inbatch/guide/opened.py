"""Tables to look up in, open once they show what all ranks have written.

Shape letters: N texts of a batch, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inbatch.errors import ConfigError
from inbatch.guide.base import Process
from inbatch.guide.missing import SourceColumn, keys_to_check
from inbatch.guide.store import OpenTable, Table
from inbatch.guide.visible import once_visible, visible_until


def open_tables(
    tables: Mapping[str, Table], columns: Mapping[str, Sequence[SourceColumn]], process: Process
) -> dict[str, OpenTable]:
    """Open all tables; wait for what other nodes have written to become visible.

    Args:
        tables: by prompt.
        columns: whose texts are stored, by prompt.
        process: which process opens them.

    Raises:
        ConfigError: some of these texts are not visible in time.
    """
    deadline_s = visible_until(process)
    return {
        prompt: _open_complete(table, columns[prompt], deadline_s, process)
        for prompt, table in tables.items()
    }


def take_part(
    table: OpenTable, keys_N: np.ndarray, rows_ND: np.ndarray, of: slice | np.ndarray
) -> np.ndarray:
    """`OpenTable.take` for some of the places."""
    part = rows_ND[of]
    held: np.ndarray = table.take(keys_N[of], part)
    if isinstance(of, np.ndarray):  # the part is a copy
        rows_ND[of] = part
    return held


def _open_complete(
    table: Table, columns: Sequence[SourceColumn], deadline_s: float, process: Process
) -> OpenTable:
    keys, num_held = keys_to_check(columns), 0

    def look() -> OpenTable | None:
        nonlocal num_held
        opened = table.open()
        num_held = int(opened.contains(keys).sum())
        return opened if num_held == len(keys) else None

    def missing() -> ConfigError:
        return ConfigError(
            "guide.store_dir",
            f"shows {num_held} of {len(keys)} texts on rank {process.rank} although "
            "all ranks have written theirs",
            "name a folder that every node sees",
            value=str(table.folder),
        )

    return once_visible(look, missing, deadline_s=deadline_s, every_s=1.0)
