"""The form in which a run reads each source: lists of documents, or columns of one text each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import to_set
from inbatch.data.sources.dropped import place_in_file
from inbatch.data.sources.locate import locate_rows
from inbatch.data.sources.source import Source
from inbatch.data.sources.views import ColumnsOfLists, ListsOfColumns
from inbatch.errors import ConfigError
from inbatch.losses.base import Loss


def formed(sources: Sequence[Source], losses: Mapping[str, Loss], *, mixed: bool) -> list[Source]:
    """The sources in the form that their losses and batches need; most stay as they are.

    Args:
        sources: as loaded.
        losses: by source name.
        mixed: whether a batch holds rows of all sources. Where one of these has lists, all are read so.

    Raises:
        ConfigError: a loss takes no lists, and those of its source differ in their lengths; rows that are to
            become lists have other prompts for some of their negatives.
    """
    found = [
        as_columns(source, losses[source.name])
        if source.is_ragged and not losses[source.name].takes_lists
        else source
        for source in sources
    ]
    ragged = next((source for source in found if source.is_ragged), None)
    if not mixed or ragged is None:
        return found
    return [source if source.is_ragged else as_lists(source, beside=ragged) for source in found]


def as_lists(source: Source, *, beside: Source) -> Source:
    """The same rows, each with a list of one positive and one of its negatives.

    Args:
        source: without lists.
        beside: the source with lists that its rows share batches with.

    Raises:
        ConfigError: its columns of negatives have different prompts.
    """
    if len(set(source.column_prompts(None)[2:])) > 1:
        raise ConfigError(
            f"{source.field}.prompts",
            f"differ between columns of negatives, which are one list beside '{beside.name}'",
            "give them one prompt, or set sampler.mixed=false",
            value=source.prompts,
        )
    said = f"rows as lists of one positive and their negatives, as '{beside.name}' has them"
    return _shown(source, ListsOfColumns(source), source.roles, said)


def as_columns(source: Source, loss: Loss) -> Source:
    """The same rows, with a column for each text of lists that are all of one length.

    Args:
        source: with lists, of one positive and as many negatives in each row, as its choice leaves them.
        loss: of the source, which takes no lists.

    Raises:
        ConfigError: their lengths differ, or the choice draws other texts in each epoch.
    """
    ragged = source.ragged
    assert ragged is not None, source.name
    counts = ragged.positive_counts(), ragged.hashes().lengths - 1 - ragged.positive_counts()
    positives_N, negatives_N = ragged.choice.counts(*counts)
    for key, given, kept in (
        ("positives", counts[0], positives_N),
        ("negatives", counts[1], negatives_N),
    ):
        if getattr(ragged.choice, key) == "sample" and (given > kept).any():
            raise ConfigError(
                f"{source.field}.{key}",
                f"draws other texts in each epoch, and loss {type(loss).__name__} takes no lists",
                "set first, or choose a loss that takes lists, such as loss=multiple_negatives_ranking",
                value="sample",
            )
    wrong = np.flatnonzero((positives_N != 1) | (negatives_N != negatives_N[0]))
    if len(wrong):
        raise _unequal(source, loss, int(wrong[0]), positives_N, negatives_N)
    num_negatives = int(negatives_N[0])
    said = "lists of one text each"
    if num_negatives > 1:
        said = f"lists of one positive and {num_negatives} negatives in each row"
    if (counts[0] != positives_N).any():
        said = f"the first positive of each row, and {_count(num_negatives, 'negative')}"
    elif (counts[1] != negatives_N).any():
        said = f"the positive of each row, and {_count(num_negatives, 'negative')}"
    view = ColumnsOfLists(source, ragged, num_negatives)
    roles = _roles_of_columns(source.roles, num_negatives)
    return _shown(source, view, roles, f"{said}, read as plain columns")


def _shown(
    source: Source, view: ColumnsOfLists | ListsOfColumns, roles: Roles, said: str
) -> Source:
    roles_of = {name: source.roles.role(number) for number, name in enumerate(source.columns)}
    gone = [name for name in reversed(source.columns) if name not in roles.texts]
    # A column that is gone gives its prompt to its role; of several the first counts, as in lists.
    prompts = {name: prompt for name, prompt in source.prompts.items() if name not in gone}
    prompts |= {roles_of[name]: source.prompts[name] for name in gone if name in source.prompts}
    return Source(
        source.name,
        view,
        roles,
        files=source.files,
        origin=source.origin,
        read_as="; ".join(filter(None, (source.read_as, said))),
        prompts=prompts,
        on_empty=source.on_empty,
        on_bad_row=source.on_bad_row,
        intake=None if source.intake.is_rows else source.intake,
        cache_dir=source.cache_dir,
        field=source.field,
    )


def _roles_of_columns(roles: Roles, num_negatives: int) -> Roles:
    """A name for each text, that of its column where this has no others."""
    names = roles.negatives
    if len(names) != num_negatives:
        names = tuple(f"{names[0]}_{number}" for number in range(1, num_negatives + 1))
    return replace(roles, negatives=names, lists=())


def _unequal(
    source: Source, loss: Loss, row: int, positives_N: np.ndarray, negatives_N: np.ndarray
) -> ConfigError:
    """The error for lists that differ in their lengths, from the first row that does."""
    num_negatives = int(negatives_N.min())
    if loss.max_columns is not None:
        num_negatives = min(num_negatives, loss.max_columns - 2)
    settings = ["positives=first"] if (positives_N != 1).any() else []
    if (negatives_N != num_negatives).any():
        settings.append(f"max_negatives={num_negatives}")
    *others, last = settings
    fix = " ".join(
        ["set", *(f"{source.field}.{key}" for key in others), to_set(source.field, last)]
    )
    if num_negatives < loss.min_columns - 2:
        fix = "leave out the rows without negatives"
    origin, place = source.origin, place_in_file(row)
    if source.files is not None and not source.num_dropped:
        ((origin, place),) = locate_rows(source.files, source.roles, [row])
    found = f"{_count(positives_N[row], 'positive')} and {_count(negatives_N[row], 'negative')}"
    before = "" if positives_N[row] != 1 else f", where the first has {negatives_N[0]}"
    return ConfigError(
        "loss",
        f"takes one positive and the same number of negatives in every row, and {place} of {origin} "
        f"has {found}{before}",
        f"choose a loss that takes lists, such as loss=multiple_negatives_ranking, or {fix}",
        value=type(loss).__name__,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
