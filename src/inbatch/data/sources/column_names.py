"""Names of columns that say what these hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

QUERY_NAMES = ("query", "anchor", "question")
POSITIVE_NAMES = ("positive", "positives", "pos", "answer", "document", "passage", "doc")
TEXT_NAMES = ("text", "sentence")  # of the only text of a row, beside its label
LABEL_NAMES = ("label", "labels", "score", "scores", "similarity", "similarity_score")
SCORES = ("positive_score", "negative_score")

_SCORES = re.compile(r"(pos|neg)(?:itive|ative)?_scores?")
_NEGATIVE = re.compile(r"(?:hard_?)?neg(?:ative)?s?(?:_?(\d+))?")
_NUMBERED = re.compile(r"(sentence|sent|text|question|title|input)_?(\d+|a|b)")
_SIDED = re.compile(r"(.*?)_?(left|right)")


def layouts_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Lower-case names of the text columns of each known layout that some names have."""
    by_lower = {name.lower(): name for name in names}
    return [*_named_pairs(by_lower), *_numbered_pairs(by_lower), *_sided_pairs(by_lower)]


def _named_pairs(by_lower: Mapping[str, str]) -> list[tuple[str, ...]]:
    pairs = [("premise", "hypothesis")]
    pairs += [(query, positive) for query in QUERY_NAMES for positive in POSITIVE_NAMES]
    return [pair for pair in pairs if all(name in by_lower for name in pair)]


def _numbered_pairs(by_lower: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Families such as sentence_0, sentence_1, sentence_2 or text_a, text_b, in their order."""
    families: dict[str, dict[int, str]] = {}
    for name in by_lower:
        if match := _NUMBERED.fullmatch(name):
            stem, place = match.groups()
            number = int(place) if place.isdigit() else "ab".index(place)
            families.setdefault(stem, {})[number] = name
    layouts = []
    for family in families.values():
        first, count = min(family), len(family)
        if first in (0, 1) and count >= 2 and max(family) == first + count - 1:
            layouts.append(tuple(family[first + i] for i in range(count)))
    return layouts


def _sided_pairs(by_lower: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Pairs such as left and right, title_left and title_right."""
    sides: dict[str, dict[str, str]] = {}
    for name in by_lower:
        if match := _SIDED.fullmatch(name):
            sides.setdefault(match[1], {})[match[2]] = name
    return [(pair["left"], pair["right"]) for pair in sides.values() if len(pair) == 2]


def negative_names(by_lower: Mapping[str, str]) -> list[str]:
    """Negatives by their number; a name without one comes first."""
    numbered = [
        (int(match[1] or -1), name) for name in by_lower if (match := _NEGATIVE.fullmatch(name))
    ]
    return [name for _, name in sorted(numbered)]


def score_names(by_lower: Mapping[str, str]) -> dict[str, str]:
    """Columns of the scores of documents, by role."""
    found = {match[1]: name for name in by_lower if (match := _SCORES.fullmatch(name))}
    return {role: by_lower[found[role[:3]]] for role in SCORES if role[:3] in found}


def pattern_of(name: str) -> str:
    """The pattern that a name fits by itself: numbered, sided or negative; empty for none."""
    patterns = {"numbered": _NUMBERED, "sided": _SIDED, "negative": _NEGATIVE}
    return next((word for word, each in patterns.items() if each.fullmatch(name.lower())), "")
