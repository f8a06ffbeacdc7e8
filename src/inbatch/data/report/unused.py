"""Columns that the training leaves unused although they look as if they mattered to it.

Judged by names: a column without a role is never read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import to_set
from inbatch.losses.base import Loss

_LABEL_WORDS = {
    *("label", "labels", "score", "scores", "similarity", "sim", "target", "gold", "class"),
    *("relevance", "relevant", "rel", "match", "matches", "matched", "matching", "rating", "grade"),
    *("duplicate", "duplicates", "paraphrase", "entailment", "equivalent", "same", "correct", "y"),
    *("judgment", "judgement", "annotation"),
}
_NEGATIVE_WORDS = {"neg", "negs", "negative", "negatives", "nonmatch", "distractor", "distractors"}
_POSITIVE_WORDS = {"pos", "positive", "positives"}


def unused_columns(
    roles: Roles, loss: Loss, *, source: str, field: str, labels_vary: bool
) -> list[str]:
    """A line on labels, and one on negatives, that a source has and its loss never sees.

    Args:
        roles: of the source's columns.
        loss: of the source.
        source: its name.
        field: its configuration key.
        labels_vary: whether the source has labels that are not all equal.
    """
    lines, of = [], f"of source '{source}'"
    like_labels = [column for column in roles.ignored if looks_like_label(column)]
    unlabelled = (
        "every row is trained as a match: set loss=contrastive (labels 0 and 1) or loss=cosent"
    )
    blind = _without_labels(loss)
    if labels_vary and blind:
        lines.append(
            f"the labels {of} (column '{roles.label}') are not used by loss {blind[0]}, and "
            f"{unlabelled}, or leave out the rows that do not match."
        )
    elif like_labels and roles.label is None and not loss.needs_labels:
        key = to_set(field, f"columns.label={like_labels[0]}")
        lines.append(
            f"{_without_role(like_labels, of, 'a label', 'labels')}, and {unlabelled} with {key}, or leave "
            "out the rows that do not match."
        )
    negatives = [column for column in roles.ignored if looks_like_negative(column)]
    room = loss.max_columns is None or len(roles.texts) < loss.max_columns
    if negatives and room and roles.label is None:
        key = to_set(field, f"columns.negatives=[{','.join([*roles.negatives, *negatives])}]")
        without = _without_role(negatives, of, "a negative", "negatives")
        lines.append(f"{without}, which no loss sees: set {key}.")
    return lines


def _without_labels(loss: Loss) -> list[str]:
    """What takes no labels: the loss, or those of its parts that take each row for a match."""
    if not loss.takes_labels:
        return [type(loss).__name__]
    parts = [part for part in loss.nested() if [*part.nested()] == [part]]
    return [
        type(part).__name__
        for part in parts
        if not (part.takes_labels or part.scope == "global" or _follows_teacher(part))
    ]


def _follows_teacher(loss: Loss) -> bool:
    return loss.needs_scores or (loss.needs_guide and not loss.filters_by_guide)


def looks_like_label(column: str) -> bool:
    """True for names such as ``is_match``, ``relevanceScore``, ``gold_label``; not for ``neg_scores``."""
    words = _words(column)
    return bool(words & _LABEL_WORDS) and not words & (_NEGATIVE_WORDS | _POSITIVE_WORDS)


def looks_like_negative(column: str) -> bool:
    """True for names such as ``negative``, ``hard_negative_text``, ``neg3``; not for ``neg_scores``."""
    words = _words(column)
    return bool(words & _NEGATIVE_WORDS) and not words & _LABEL_WORDS


def _words(column: str) -> set[str]:
    """The words of a name, by case, digits and signs."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return set(re.findall(r"[a-z]+", parted.lower()))


def _without_role(columns: Sequence[str], of: str, one: str, several: str) -> str:
    names = ", ".join(repr(column) for column in columns)
    if len(columns) == 1:
        return f"column {names} {of} has no role and looks like {one}"
    return f"columns {names} {of} have no role and look like {several}"
