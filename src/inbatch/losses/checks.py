"""Checks that every loss makes: of its own fields once, of its inputs before any arithmetic."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

from inbatch.errors import ConfigError
from inbatch.losses.base import LossInput


class _Requirements(Protocol):
    @property
    def needs_labels(self) -> bool: ...
    @property
    def needs_guide(self) -> bool: ...
    @property
    def needs_text_ids(self) -> bool: ...
    @property
    def min_columns(self) -> int: ...
    @property
    def max_columns(self) -> int | None: ...


def check_inputs(loss: _Requirements, inputs: LossInput) -> None:
    """Raise ConfigError unless columns, labels and guide are what the loss takes."""
    name, num_columns = type(loss).__name__, len(inputs.columns)
    num_rows = inputs.columns[0].shape[0]
    if num_columns < loss.min_columns:
        raise ConfigError(
            f"{name} takes at least {loss.min_columns} text columns but the batch has"
            f" {num_columns}: add columns to the data or choose another loss."
        )
    if loss.max_columns is not None and num_columns > loss.max_columns:
        raise ConfigError(
            f"{name} takes at most {loss.max_columns} text columns but the batch has"
            f" {num_columns}: drop columns from the data or choose another loss."
        )
    if loss.needs_labels and inputs.labels is None:
        raise ConfigError(
            f"{name} needs a label for each row but the batch has none: name the label column of"
            " the data or choose a loss without labels."
        )
    if inputs.labels is not None and inputs.labels.shape != (num_rows,):
        raise ConfigError(
            f"labels has shape {tuple(inputs.labels.shape)} but the batch has {num_rows} rows:"
            " give one number for each row."
        )
    if loss.needs_guide and (inputs.guide is None or len(inputs.guide) != num_columns):
        num_guide = 0 if inputs.guide is None else len(inputs.guide)
        raise ConfigError(
            f"{name} needs guide embeddings of all {num_columns} columns but the batch has them for"
            f" {num_guide}: configure a guide or choose a loss without one."
        )

    if loss.needs_text_ids and (inputs.text_ids is None or len(inputs.text_ids) != num_columns):
        raise ConfigError(
            f"{name} with mask_duplicates needs the text ids of all {num_columns} columns but the batch"
            " has none: set mask_duplicates=false."
        )


def check_choice(field: str, value: object, choices: Collection[object]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        raise ConfigError(f"{field} is {value!r}: choose one of {allowed}.")


def check_number(field: str, value: float, *, above: float | None = None) -> None:
    """Raise ConfigError unless `value` is finite and, if asked, greater than `above`."""
    if not math.isfinite(value) or (above is not None and value <= above):
        bound = "a finite number" if above is None else f"a finite number above {above}"
        raise ConfigError(f"{field} is {value!r}: set {bound}.")
