"""Refuses sizes of batches that do not go with the ranks, the data or the losses, before training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inbatch.config.check import check_precision, rows_per_rank
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.load import Source
from inbatch.errors import ConfigError
from inbatch.losses.base import Loss
from inbatch.strategies import World


def check_world(
    world: World, global_batch_size: int, by_source: Mapping[str, Any] | None, precision: str
) -> None:
    """Check what can be checked before anything is loaded: batch sizes over ranks, and the precision.

    Args:
        world: of the run.
        global_batch_size, by_source: see `check_sizes`.
        precision: as configured.

    Raises:
        ConfigError: a batch does not divide over the ranks, or the device cannot compute in the precision.
    """
    check_sizes(global_batch_size, by_source, world_size=world.size)
    check_precision(precision, world.accelerator)


def check_sizes(
    global_batch_size: int, by_source: Mapping[str, Any] | None, *, world_size: int
) -> None:
    """Check that global batches divide over the ranks.

    Args:
        global_batch_size: rows.
        by_source: sizes of single sources, where they differ.
        world_size: ranks.

    Raises:
        ConfigError: one does not divide; it is named.
    """
    rows_per_rank(global_batch_size, world_size)
    for name, rows in (by_source or {}).items():
        if isinstance(rows, int):  # the sampler refuses others
            rows_per_rank(rows, world_size, field=f"sampler.batch_sizes.{name}")


def check_others(
    losses: Mapping[str, Loss],
    sources: Sequence[Source],
    batch_sizes: Mapping[str, int],
    *,
    mixed: bool,
    ranks: int,
) -> None:
    """Check that a loss that compares rows with each other has others to compare with.

    Alone, a row has loss 0, and nothing is learned. A hard negative is enough for in-batch negatives.

    Args:
        losses, batch_sizes: by source.
        sources: of the run.
        mixed: whether a batch holds rows of all sources.
        ranks: among which a batch is split, where a rank compares its own rows only.

    Raises:
        ConfigError: a batch has one row.
    """
    total = sum(source.num_rows for source in sources)
    for source in sources:
        loss = losses[source.name]
        negatives = loss.scope == "candidates" and len(source.columns) > 2
        if loss.scope == "row" or negatives:
            continue
        comparing = [part for part in loss.nested() if part.scope != "row"]
        name = type(comparing[-1]).__name__
        if (total if mixed else source.num_rows) < 2:
            raise ConfigError(
                path_key(source.field),
                f"has one row, and {name} compares the rows of a batch with each other",
                "add rows",
                value=source.origin,
            )
        if batch_sizes[source.name] // ranks < 2:
            raise ConfigError(
                "global_batch_size",
                f"leaves a row alone, and {name} compares the rows of a batch with each other",
                f"set {2 * ranks} or more",
                value=batch_sizes[source.name],
            )


def check_batch(
    sources: Sequence[Source], batch_sizes: Mapping[str, int], *, mixed: bool, drop_last: bool
) -> None:
    """Check that some source, or all together if batches are mixed, can fill a batch.

    Args:
        sources: of the run.
        batch_sizes: rows of a global batch, by source.
        mixed: whether a batch holds rows of all sources.
        drop_last: whether only full batches are trained on; else there is a smaller one.

    Raises:
        ConfigError: there are fewer rows than a batch has.
    """
    if not drop_last:
        return
    if mixed:
        rows, size = sum(source.num_rows for source in sources), max(batch_sizes.values())
    else:
        largest = max(sources, key=lambda source: source.num_rows / batch_sizes[source.name])
        rows, size = largest.num_rows, batch_sizes[largest.name]
    if rows < size:
        raise ConfigError(
            "global_batch_size",
            f"is more than the {rows} rows of the data",
            f"set {rows} or less, or drop_last=false",
            value=size,
        )
