"""What a loss asks of the labels of a source."""

from __future__ import annotations

import numpy as np

from inbatch.data.sources.config_keys import to_set
from inbatch.data.sources.load import Source
from inbatch.errors import ConfigError

LARGEST = 1 << 24  # from here on float32 does not tell all whole numbers apart


def check_classes(source: Source, name: str) -> None:
    """Check that rows of one label can be compared with those of others.

    Args:
        source: with labels.
        name: of the loss.

    Raises:
        ConfigError: all labels are the same, or all different, or float32 may have made one of several.
    """
    labels = source.labels()
    assert labels is not None  # as checked before
    _check_exact(labels, source, name)
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) > 1 and counts.max() > 1:
        return
    problem = "the same" if len(counts) == 1 else "different"
    raise ConfigError(
        "loss",
        "compares rows of one label with those of others, and the labels of source "
        f"{source.name!r} are all {problem}",
        f"name another column in {to_set(source.field, 'columns.label')}, or choose another loss",
        value=name,
    )


def _check_exact(labels: np.ndarray, source: Source, name: str) -> None:
    """Refuse labels that float32 may have rounded: those of a class must not become those of another."""
    wrong = labels[(labels != np.round(labels)) | (np.abs(labels) >= LARGEST)]
    if len(wrong):
        raise ConfigError(
            "loss",
            f"takes labels for classes, which are whole numbers below {LARGEST:,}, and source "
            f"{source.name!r} has {wrong[0]:.9g}",
            f"number the classes in the column of {to_set(source.field, 'columns.label')}",
            value=name,
        )


def label_range(source: Source) -> tuple[float, float]:
    """Smallest and largest label of a source that has labels, over all rows."""
    labels = source.labels()
    assert labels is not None, source.name
    return float(labels.min()), float(labels.max())


def check_labels(source: Source, least: float, most: float, *, name: str) -> None:
    """Check that labels lie in the range that a loss takes.

    Raises:
        ConfigError: they do not.
    """
    low, high = label_range(source)
    if low < least or high > most:
        raise ConfigError(
            f"source {source.name!r}",
            f"has labels from {low:g} to {high:g}, and loss {name} takes {least:g} to {most:g}",
            "scale them, or set loss=cosent, which takes any",
        )
