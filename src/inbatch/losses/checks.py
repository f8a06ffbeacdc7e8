"""Checks that every loss makes: of its own fields once, of its inputs before any arithmetic."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput


def check_inputs(loss: Loss, inputs: LossInput) -> None:
    """Raise ConfigError unless columns, labels, scores and guide are what the loss takes."""
    refused = partial(ConfigError, "loss", value=type(loss).__name__)
    num_columns = len(inputs.columns)
    num_rows = inputs.columns[0].shape[0]
    if inputs.documents is not None and not loss.takes_lists:
        raise refused(
            "takes no lists of positives or negatives",
            "set loss=multiple_negatives_ranking, or give each row one positive",
        )
    if inputs.documents is None and num_columns < loss.min_columns:
        problem = f"takes at least {loss.min_columns} text columns but the batch has {num_columns}"
        raise refused(problem, "add columns to the data or choose another loss")
    if loss.max_columns is not None and num_columns > loss.max_columns:
        problem = f"takes at most {loss.max_columns} text columns but the batch has {num_columns}"
        raise refused(problem, "drop columns from the data or choose another loss")
    if loss.needs_labels and inputs.labels is None:
        raise refused(
            "needs a label for each row but the batch has none",
            "name the label column of the data or choose a loss without labels",
        )
    if inputs.labels is not None and inputs.labels.shape != (num_rows,):
        raise ConfigError(
            "labels",
            f"has shape {tuple(inputs.labels.shape)} but the batch has {num_rows} rows",
            "give one number for each row",
        )
    if loss.needs_scores and inputs.scores is None:
        raise refused(
            "needs a score for each document but the batch has none",
            "name the columns of scores of the data or choose a loss without scores",
        )
    if loss.needs_guide and (inputs.guide is None or len(inputs.guide) != num_columns):
        num_guide = 0 if inputs.guide is None else len(inputs.guide)
        raise refused(
            f"needs guide embeddings of all {num_columns} columns but the batch has them for {num_guide}",
            "configure a guide or choose a loss without one",
        )
    if loss.matches_guide and inputs.guide is not None:
        check_dimensions(loss, inputs.columns[0].shape[1], inputs.guide[0].shape[1])
    if loss.needs_text_ids and (inputs.text_ids is None or len(inputs.text_ids) != num_columns):
        raise refused(
            f"with mask_duplicates needs the text ids of all {num_columns} columns but the batch has none",
            "set mask_duplicates=false",
        )


def check_dimensions(loss: Loss, student: int, guide: int) -> None:
    """Raise ConfigError if a loss compares embeddings that have different dimensions."""
    if student != guide:
        raise ConfigError(
            "loss",
            f"compares embeddings with the guide's, which have {guide} dimensions, the encoder's {student}",
            "set loss.projection=true, or compare scores, as loss=in_batch_kl does",
            value=type(loss).__name__,
        )


def check_choice(field: str, value: object, choices: Collection[object]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        raise ConfigError(field, "is not a valid choice", f"choose one of {allowed}", value=value)


def check_number(field: str, value: float, *, above: float | None = None) -> None:
    """Raise ConfigError unless `value` is finite and, if asked, greater than `above`."""
    if not math.isfinite(value) or (above is not None and value <= above):
        bound = "a finite number" if above is None else f"a finite number above {above}"
        raise ConfigError(field, f"is not {bound}", "set one", value=value)
