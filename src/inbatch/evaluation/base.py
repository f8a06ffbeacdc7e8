"""The evaluator protocol, and helpers that evaluators share. Shape letters: N texts, D dimension."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from inbatch.data.sources.columns import suggest
from inbatch.errors import ConfigError
from inbatch.evaluation.bootstrap import Sample
from inbatch.evaluation.metrics import SIMILARITIES


class Encode(Protocol):
    """Embeds texts: float32 [N, D] on the CPU, in the order of the texts.

    `role` is "query", "document" or None and chooses the prompt, as in `Encoder.encode`. Where rows bring
    a prompt of their own, it comes as `prompt`, in place of the role's.
    """

    def __call__(
        self, texts: Sequence[str], *, role: str | None, prompt: str | None = None
    ) -> Tensor:
        """Embeddings of `texts`."""


@runtime_checkable
class EncodesOn(Protocol):
    """An `Encode` that names its device."""

    @property
    def device(self) -> torch.device:
        """The device of the encoder."""


@runtime_checkable
class SharesSearch(Protocol):
    """An `Encode` of one of several ranks, all of which get all embeddings.

    What follows from them may be shared: each rank works on some parts, and the results are joined.
    """

    @property
    def rank(self) -> int:
        """Of this process."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""

    def join(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all ranks in their order; `counts` are the rows of each rank."""


class Evaluator(Protocol):
    """Called with `encode`, returns metrics under ``{name}_{key}``; ``{key}`` if the name is empty.

    A metric of embeddings that hold NaN or infinity is NaN.
    """

    @property
    def name(self) -> str:
        """Prefix of the keys."""

    @property
    def description(self) -> str:
        """Kind of evaluation, in the words of model cards."""

    @property
    def primary_metric(self) -> str:
        """The full key that model selection looks at."""

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Metrics of what `encode` gives."""


@runtime_checkable
class NamesMetrics(Protocol):
    """An evaluator that knows the keys of its metrics without a call."""

    def metric_names(self) -> tuple[str, ...]:
        """All full keys that a call returns."""


class Examples(NamedTuple):
    """Some judged rows, for people to read."""

    columns: tuple[str, ...]
    rows: list[tuple[str | float | bool, ...]]


@runtime_checkable
class ShowsExamples(Protocol):
    """An evaluator that keeps examples of its last call."""

    name: str

    def examples(self) -> Examples | None:
        """The first rows; None before the first call, or where embeddings were not finite."""


class EvaluationRows(NamedTuple):
    """What an evaluator evaluates on, for the model card.

    size: rows, or queries.
    contents: what `size` counts, and what else there is.
    columns: texts or labels by name, equally long; some of the rows will do.
    notes: what a person should know of how they are read and counted, as phrases.
    """

    size: int
    contents: str
    columns: Mapping[str, Sequence[str] | Sequence[float]]
    notes: tuple[str, ...] = ()


@runtime_checkable
class KeepsRows(Protocol):
    """An evaluator that keeps what its primary metric was computed of in its last call."""

    def sample(self) -> Sample | None:
        """The metric as a function of rows; None before a call, or where embeddings were not finite."""


@runtime_checkable
class ShowsRows(Protocol):
    """An evaluator that says what it evaluates on."""

    def evaluated_rows(self) -> EvaluationRows:
        """Its rows."""


def contents_of(evaluators: Mapping[str, Evaluator]) -> dict[str, str]:
    """What each evaluator evaluates on, in one line with its notes; those that do not say are left out."""
    shown = {}
    for name, evaluator in evaluators.items():
        if isinstance(evaluator, ShowsRows):
            rows = evaluator.evaluated_rows()
            shown[name] = "; ".join((f"{rows.size:,} {rows.contents}", *rows.notes))
    return shown


@runtime_checkable
class FollowsModel(Protocol):
    """An evaluator that may compare embeddings by the model's own similarity.

    similarity: what it compares by; where nothing is given, cosine until `follow_model`.
    follows_model: whether nothing was given.
    """

    similarity: tuple[str, ...]
    follows_model: bool


def follow_model(evaluators: Iterable[Evaluator], similarity: str) -> None:
    """Let evaluators that were given no similarity compare by that of a model.

    Args:
        evaluators: of a run; their primary metrics follow.
        similarity: of the encoder.
    """
    for evaluator in evaluators:
        if isinstance(evaluator, FollowsModel) and evaluator.follows_model:
            evaluator.similarity = (similarity,)


def embed_distinct(
    encode: Encode,
    columns: Sequence[Sequence[str]],
    *,
    role: str | None,
    prompt: str | None = None,
    truncate_dim: int | None = None,
) -> list[Tensor]:
    """Embeddings of each column of texts; a text that occurs several times is encoded once.

    Args:
        encode: see `Encode`.
        columns: texts that are embedded alike.
        role: whose prompt to use.
        prompt: another one in its place.
        truncate_dim: keep the first dimensions only; None for all.

    Returns:
        One [N, D] tensor for each column.
    """
    places = {text: i for i, text in enumerate(dict.fromkeys(t for c in columns for t in c))}
    # An `encode` of another package need not know of prompts that are not a role's.
    options = {} if prompt is None else {"prompt": prompt}
    table = encode(list(places), role=role, **options)[:, :truncate_dim]
    if len(columns) == 1 and len(columns[0]) == len(places):
        return [table]  # all distinct, hence already in order: no copy of a large corpus
    return [table[torch.tensor([places[text] for text in column])] for column in columns]


def with_prefix(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics under ``{name}_{key}``, as plain floats."""
    return {prefix_key(name, key): float(value) for key, value in metrics.items()}


def prefix_key(name: str, key: str) -> str:
    """``{name}_{key}``, or the key alone without a name."""
    return f"{name}_{key}" if name else key


def with_summary(similarity: Sequence[str]) -> tuple[str, ...]:
    """Similarities, and "max" after several of them."""
    return (*similarity, "max") if len(similarity) > 1 else tuple(similarity)


def largest(values: Iterable[float]) -> float:
    """The maximum; NaN if any value is."""
    return float(np.max(list(values)))


def field_of(name: str, default: str) -> str:
    """Configuration key of an evaluator, for messages."""
    return f"evaluation.evaluators.{name or default}"


def parse_similarity(value: str | Sequence[str] | None, *, field: str) -> tuple[str, ...]:
    """Names of similarity functions; cosine for None, see `follow_model`.

    Raises:
        ConfigError: no name, one twice, or one that is not known.
    """
    if value is None:
        return ("cosine",)
    names = (value,) if isinstance(value, str) else tuple(value)
    known = ", ".join(SIMILARITIES)
    for name in names:
        if name not in SIMILARITIES:
            raise ConfigError(
                f"{field}.similarity", "is not known", suggest(name, SIMILARITIES), value=name
            )
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"{field}.similarity",
            "does not name each function once",
            f"choose from {known}",
            value=list(names),
        )
    return names


def check_truncate_dim(value: int | None, *, field: str) -> int | None:
    """Return `value`, a number of dimensions or None.

    Raises:
        ConfigError: it is below 1.
    """
    if value is not None and value < 1:
        raise ConfigError(
            f"{field}.truncate_dim",
            "is below 1",
            "set at least 1, or null for all dimensions",
            value=value,
        )
    return value
