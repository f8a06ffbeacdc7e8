"""Natural language inference: ``premise, hypothesis, label`` (or ``sentence1, sentence2, gold_label``).

https://huggingface.co/datasets/sentence-transformers/all-nli, https://nlp.stanford.edu/projects/snli/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from inbatch.data.formats.base import BadRecordError, Head, Row, fields_of, shown, text_of
from inbatch.errors import ConfigError

_PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"))
_LABELS = ("gold_label", "label", "labels", "label_text")
_WORDS = ("entailment", "neutral", "contradiction")
_NO_LABEL = ("-", "-1", "", "None")  # where the annotators of a pair disagreed


@final
@dataclass(frozen=True)
class Nli:
    """Pairs with one of three labels: a premise is the query of what it entails, and of what it contradicts.

    Entailments are positives and contradictions negatives, all of one premise in one row. Neutral pairs,
    pairs without a label and premises that entail nothing are left out and counted.

    labels: what numbers stand for, from 0; the default is the order of SNLI, MultiNLI, XNLI and all-nli.
    split: pairs that name another split, as those of AllNLI.tsv do, are left out and counted; null takes all.
    """

    labels: tuple[str, ...] = _WORDS
    split: str | None = "train"
    joined = "pairs"

    def __post_init__(self) -> None:
        if sorted(self.labels) != sorted(_WORDS):
            raise ConfigError(
                "labels",
                "does not name the three labels",
                f"order {', '.join(_WORDS)}",
                value=list(self.labels),
            )

    def recognise(self, head: Head) -> str:
        """By labels in words, or beside premise and hypothesis by whole numbers up to 2."""
        first, _, label = _names(head.names)
        if not label:
            return ""
        values = [record.get(label) for record in head.records if isinstance(record, Mapping)]
        if any(value in _WORDS for value in values):
            return f"its {label} is entailment, neutral or contradiction"
        numbers = set(map(str, values))  # csv files have no types
        if first == "premise" and "2" in numbers and numbers <= {"0", "1", "2", *_NO_LABEL}:
            order = ", ".join(f"{number} is {word}" for number, word in enumerate(self.labels))
            return f"its premises and hypotheses have the {label} 0, 1 or 2, of which {order}"
        return ""

    def row(self, record: Any) -> Row | str:
        """A premise with one hypothesis."""
        record = fields_of(record)
        first, second, name = _names(tuple(record))
        if not name:
            raise BadRecordError("has no premise, hypothesis and label", "give all of them")
        if self.split is not None and record.get("split", self.split) != self.split:
            return "of another split"
        premise, hypothesis = text_of(record[first], first), text_of(record[second], second)
        label = self._label(record[name])
        if label == "entailment":
            return Row(premise, [hypothesis], [])
        if label == "contradiction":
            return Row(premise, [], [hypothesis])
        return "with a neutral label" if label == "neutral" else "without a label"

    def _label(self, value: object) -> str:
        text = str(value)
        if text in _NO_LABEL:
            return ""
        if text.isdigit() and int(text) < len(self.labels):
            text = self.labels[int(text)]
        if text not in _WORDS:
            raise BadRecordError(f"has {shown(value)} as label", f"give {', '.join(_WORDS)}")
        return text


def _names(names: Sequence[str]) -> tuple[str, str, str]:
    """The columns of premise, hypothesis and label; "" for what is not there."""
    pair = next((pair for pair in _PAIRS if set(pair) <= set(names)), ("", ""))
    label = next((name for name in _LABELS if name in names), "")
    return (*pair, label if pair[0] else "")
