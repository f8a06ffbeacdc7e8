"""Refuses losses, data, devices and strategies that do not go together, before training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import NoReturn

import torch

from inbatch.data.collate import MIXED
from inbatch.data.sources.config_keys import columns_key, to_set
from inbatch.data.sources.load import Source
from inbatch.data.sources.views import ColumnsOfLists
from inbatch.errors import ConfigError
from inbatch.losses.base import Loss
from inbatch.losses.checks import check_dimensions
from inbatch.losses.gist import GIST
from inbatch.losses.softmax.implementation import obstacle_of_kernels
from inbatch.run.batch_checks import check_batch, check_others
from inbatch.run.label_checks import check_classes, check_labels
from inbatch.run.parts import Parts
from inbatch.run.strategy_checks import check_frozen_weights, check_strategy
from inbatch.strategies import World


def check_parts(
    parts: Parts,
    world: World,
    *,
    precision: str,
    gather: str,
    mixed: bool,
    drop_last: bool,
    on_nonfinite: str,
) -> None:
    """Check that the parts of a run go together.

    Args:
        parts: of the run.
        world: its devices.
        precision, gather, drop_last, on_nonfinite: as configured.
        mixed: whether a batch holds rows of all sources.

    Raises:
        ConfigError: two of them do not.
    """
    check_dims(
        parts.losses,
        parts.encoder.output_dimension,
        guide=None if parts.guide is None else parts.guide.dimension,
    )
    check_kernels(parts.losses, world, precision)
    check_gather(parts.losses, gather)
    check_lists(parts.losses, parts.sources, gather=gather, world_size=world.size)
    ranks = world.size if gather == "local" else 1
    check_others(parts.losses, parts.sources, parts.batch_sizes, mixed=mixed, ranks=ranks)
    check_batch(parts.sources, parts.batch_sizes, mixed=mixed, drop_last=drop_last)
    check_strategy(parts.strategy, precision, on_nonfinite)
    check_frozen_weights(parts, precision)


def check_loss(loss: Loss, source: Source, *, guided: bool) -> None:
    """Check that a source has what its loss needs.

    Raises:
        ConfigError: labels, scores, a guide or columns are missing, or there are too many columns.
    """
    name, columns = type(loss).__name__, len(source.columns)
    refused = partial(ConfigError, "loss", value=name)
    if loss.needs_labels and not source.has_labels:
        raise refused(
            f"needs labels, and source {source.name!r} has none",
            f"name its label column in {to_set(source.field, 'columns.label')}, or choose a loss for pairs "
            "such as loss=multiple_negatives_ranking",
        )
    if loss.needs_scores:
        _check_scores(source, name)
    if loss.labels_are_classes:
        check_classes(source, name)
    if loss.label_range is not None:
        check_labels(source, *loss.label_range, name=name)
    if loss.needs_guide and not guided:
        _refuse_without_guide(loss)
    least = loss.min_columns_of_lists if source.is_ragged else loss.min_columns
    most = loss.max_columns
    if columns < least or (most is not None and columns > most):
        span = (
            f"at least {least}" if most is None else f"{least} to {most}" if most > least else most
        )
        fix = f"set {columns_key(source.field)}"
        if 1 < columns < least:
            fix = f"set {to_set(source.field, 'columns.negatives')}"
        elif isinstance(source.stored, ColumnsOfLists) and most is not None and columns > most:
            fix = f"set {to_set(source.field, f'max_negatives={most - 2}')}"
        raise refused(
            f"takes {span} text columns, and source {source.name!r} has {columns} "
            f"({', '.join(source.columns)})",
            fix,
        )


def check_dims(losses: Mapping[str, Loss], dimension: int, *, guide: int | None = None) -> None:
    """Check that an encoder's embeddings are as long as the losses want to cut or compare them.

    Args:
        losses: by source.
        dimension, guide: of encoder and guide; None without one.

    Raises:
        ConfigError: a Matryoshka dimension exceeds `dimension`, or a loss compares embeddings with the
            guide's, and these have another one.
    """
    for loss in chain.from_iterable(loss.nested() for loss in losses.values()):
        if loss.matches_guide and guide is not None:
            check_dimensions(loss, dimension, guide)
        dims = getattr(loss, "dims", ())
        if dims and max(dims) > dimension:
            raise ConfigError(
                "loss.dims",
                f"exceeds the {dimension} dimensions of the encoder",
                "lower it",
                value=list(dims),
            )


def _refuse_without_guide(loss: Loss) -> NoReturn:
    part = next(p for p in reversed([*loss.nested()]) if p.needs_guide)
    name = type(part).__name__
    problem = "needs a guide" if part is loss else f"has a part {name}, which needs a guide"
    itself = "loss.self_guided" if part is loss else f"self_guided of {name}"
    alone = f", or {itself}=true" if isinstance(part, GIST) else ""
    raise ConfigError(
        "loss",
        problem,
        f"set guide.model=NAME_OR_PATH, or guide=minilm{alone}",
        value=type(loss).__name__,
    )


def _check_scores(source: Source, name: str) -> None:
    roles = source.roles
    lacking = source.num_without_scores() if roles.scores else source.num_rows
    if not lacking:
        return
    wanted = ("positive_score", *(["negative_score"] if roles.negatives else []))
    missing = [role for role in wanted if getattr(roles, role) is None]
    from_lists = isinstance(source.stored, ColumnsOfLists)  # whose texts have scores in lists too
    if "negative_score" in missing and len(roles.negatives) > 1 and not from_lists:
        problem = f"has {len(roles.negatives)} columns of negatives, of which none can have scores"
        fix = "keep all negatives in one column of lists"
    elif missing:
        problem = f"has no {' and no '.join(missing)}"
        fix = f"name it in {' and '.join(to_set(source.field, f'columns.{role}') for role in missing)}"
    else:
        problem = f"lacks some in {lacking:,} of its {source.num_rows:,} rows"
        fix = "score every document, or leave these rows out"
    raise ConfigError(
        "loss",
        f"needs a score for each document, and source {source.name!r} {problem}",
        f"{fix}, or choose a loss that needs none",
        value=name,
    )


def check_stored_guide(source: Source) -> None:
    """Check that embeddings of a source can be stored in reasonable time.

    Raises:
        ConfigError: Its rows are read file by file, and a store reads them in another order.
    """
    if source.streamed is not None:
        raise ConfigError(
            "guide.mode",
            f"reads the rows of source '{source.name}' in another order than its files hold "
            f"them, and {source.field}.streaming=true would fetch each file again and again",
            "set guide.mode=live, or prepare the data",
            value="stored",
        )


def check_gather(losses: Mapping[str, Loss], gather: str) -> None:
    """Check that candidates can travel in a ring.

    Raises:
        ConfigError: no loss has candidates, or one has that need the whole batch.
    """
    if gather != "ring":
        return
    if all(loss.scope != "candidates" for loss in losses.values()):
        names = ", ".join(sorted({type(loss).__name__ for loss in losses.values()}))
        raise ConfigError(
            "gather",
            f"is for losses with in-batch negatives, and the loss is {names}",
            "set gather=global",
            value=gather,
        )
    for loss in losses.values():
        if loss.scope == "candidates" and not loss.takes_ring:
            others = [part for part in loss.nested() if part.scope != "row"]
            name = next(
                type(part).__name__
                for part in reversed(others)
                if part.scope == "global" or not part.takes_ring
            )
            raise ConfigError(
                "gather",
                f"is for losses that see the rows of other ranks in turn, and {name} needs all at once",
                "set gather=global",
                value=gather,
            )


def check_lists(
    losses: Mapping[str, Loss], sources: Sequence[Source], *, gather: str, world_size: int
) -> None:
    """Check that rows with lists, and rows whose own negatives alone count, can be computed as configured.

    Args:
        losses: by source.
        sources: of the run.
        gather: as configured.
        world_size: ranks.

    Raises:
        ConfigError: they are to travel in a ring, or to be computed by Triton kernels.
    """
    for source in sources:
        loss = losses[source.name]
        if source.is_ragged:
            what = f"rows with lists, which source {source.name!r} has"
        elif any(getattr(part, "negatives", "all") == "own" for part in loss.nested()):
            what = "loss.negatives=own"
        else:
            continue
        if gather == "ring" and world_size > 1:
            raise ConfigError("gather", f"does not know {what}", "set gather=global", value=gather)
        if _asks_for_kernels(loss):
            raise ConfigError(
                "loss.implementation",
                f"does not know {what}",
                "set loss.implementation=auto",
                value="triton",
            )


def _asks_for_kernels(loss: Loss) -> bool:
    return any(getattr(part, "implementation", "tiled") == "triton" for part in loss.nested())


def check_kernels(losses: Mapping[str, Loss], world: World, precision: str) -> None:
    """Check that the device and the precision can run the implementations that losses ask for.

    Raises:
        ConfigError: Triton kernels without a GPU of capability 8.0, without triton, or in float64.
    """
    for name, loss in losses.items():
        if name == MIXED or not _asks_for_kernels(loss):
            continue
        if precision == "fp64" and world.accelerator == "cuda":
            problem = "computes in float32, and precision is 'fp64'"
        else:
            problem = obstacle_of_kernels(torch.device(world.accelerator))
        if problem:
            raise ConfigError(
                "loss.implementation", problem, "set loss.implementation=tiled", value="triton"
            )
