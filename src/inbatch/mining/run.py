"""Mine for all queries, write the rows and the report, over any number of ranks.

::

    FOLDER/mine.json              what the results follow from
          /embeddings/            of queries and documents, by the model and by the guide
          /blocks/                negatives of each block of queries
          /mined-00000.parquet    the rows
          /report.md, report.json

Each step leaves out what is there, so that the same command goes on where an earlier one was stopped or
killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inbatch.errors import ConfigError
from inbatch.files import remove_unfinished, write_json, write_text
from inbatch.guide.base import Process
from inbatch.guide.fill import FillLog
from inbatch.guide.visible import once_visible, visible_until
from inbatch.mining.blocks import Miner, block_path, read_blocks, write_block
from inbatch.mining.identity import BLOCKS
from inbatch.mining.report import make_report, report_text
from inbatch.mining.rows import RowForm, check_files, join_blocks, shards_of, write_shard


def run_mining(
    miner: Miner,
    form: RowForm,
    folder: Path,
    *,
    process: Process,
    settings: Mapping[str, Any],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Mine what is missing and write everything; every rank calls it, with equal arguments.

    Args:
        miner: what the negatives follow from.
        form: of the rows.
        folder: of the results, seen by all ranks, claimed by these settings.
        process: which of how many this is.
        settings: for the report.
        note: called with the name of each part when it is done.

    Returns:
        The report.

    Raises:
        ConfigError: the folder holds rows of another mining; no row gets as many negatives as it must have;
            an embedding is not finite.
    """
    blocks = folder / BLOCKS
    if process.rank == 0:
        check_files(folder, miner.training, form)
        for each in (folder, blocks):
            remove_unfinished(each)
    process.barrier()
    _mine_blocks(miner, blocks, process)
    note("mining")
    process.barrier()
    _wait_until_visible(miner, blocks, process)
    found = list(read_blocks(blocks, miner.num_blocks))
    mined = join_blocks(found, form.scores)
    for shard in shards_of(miner.training, form.shard_rows)[process.rank :: process.world_size]:
        write_shard(folder, shard, miner.training, mined, form)
    report = make_report(miner.training, found, form, settings=settings)
    if report["rows"]["written"] == 0:
        raise ConfigError(
            "mine.min_negatives",
            "leaves no row, since no query gets as many negatives",
            "set a lower number, or let fewer candidates be left out",
            value=form.min_negatives,
        )
    process.barrier()
    if process.rank == 0:
        write_json(folder / "report.json", report)
        write_text(folder / "report.md", report_text(report))
    note("writing")
    return report


def _mine_blocks(miner: Miner, folder: Path, process: Process) -> None:
    own = range(process.rank, miner.num_blocks, process.world_size)
    missing = [number for number in own if not block_path(folder, number).is_file()]
    size = miner.block_queries
    log = FillLog(len(missing) * size, process, label="mine", unit="queries")
    for number in missing:
        write_block(folder, number, miner.mine(number))
        log.add(size)


def _wait_until_visible(miner: Miner, folder: Path, process: Process) -> None:
    def absent() -> list[int]:
        return [n for n in range(miner.num_blocks) if not block_path(folder, n).is_file()]

    def missing() -> ConfigError:
        return ConfigError(
            "output_dir",
            f"does not show {len(absent())} of {miner.num_blocks} blocks that all ranks have written",
            "name a folder that every node sees",
            value=str(folder.parent),
        )

    deadline_s = visible_until(process)
    once_visible(lambda: None if absent() else True, missing, deadline_s=deadline_s, every_s=0.5)
