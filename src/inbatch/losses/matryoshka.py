"""Matryoshka: a loss of embeddings that are also good when cut short. Shape letter: D dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import normalize

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_number
from inbatch.losses.pairs import full_precision


def truncate(column: Tensor, dim: int) -> Tensor:
    """The first `dim` dimensions, at unit length."""
    return normalize(full_precision(column[:, :dim]), dim=1)


_PUBLISHED = Published(
    "MatryoshkaLoss",
    bibtex="""@misc{kusupati2022matryoshka,
    title = {Matryoshka Representation Learning},
    author = {Aditya Kusupati and Gantavya Bhatt and Aniket Rege and Matthew Wallingford and
        Aditya Sinha and Vivek Ramanujan and William Howard-Snyder and Kaifeng Chen and
        Sham Kakade and Prateek Jain and Ali Farhadi},
    year = {2022},
    eprint = {2205.13147},
    archivePrefix = {arXiv},
    primaryClass = {cs.LG}
}""",
)


@dataclass(frozen=True)
class Matryoshka(Loss):
    """``sum_k weights[k] * loss(first dims[k] dimensions of each embedding, at unit length)``.

    Wraps any loss and behaves like it in scope, columns, labels and guide (whose embeddings stay
    whole). Put the full dimension among `dims` if the uncut embeddings are to be trained. Metrics
    are those of the largest dimension, and the inner loss of each as ``loss_dim_{dim}``.
    Equals sentence-transformers' MatryoshkaLoss (``matryoshka_dims``, ``matryoshka_weights``) with
    all dimensions in every step. Paper: Kusupati et al. 2022, arXiv:2205.13147.
    """

    loss: Loss
    dims: Sequence[int]
    weights: Sequence[float] | None = None

    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        dims, weights = tuple(self.dims), self.weights
        weights = (1.0,) * len(dims) if weights is None else tuple(weights)
        if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
            raise ConfigError(
                "dims",
                "is not a list of distinct dimensions",
                "list numbers of at least 1",
                value=list(dims),
            )
        if len(weights) != len(dims):
            raise ConfigError(
                "weights", f"has {len(weights)} entries for {len(dims)} dims", "give one for each"
            )
        for weight in weights:
            check_number("weights", weight)
        pairs = sorted(zip(dims, weights), reverse=True)
        object.__setattr__(self, "dims", tuple(dim for dim, _ in pairs))
        object.__setattr__(self, "weights", tuple(weight for _, weight in pairs))

    @property
    def scope(self) -> Literal["row", "candidates", "global"]:
        """The inner loss's."""
        return self.loss.scope

    @property
    def label_range(self) -> tuple[float, float] | None:
        """The inner loss's."""
        return self.loss.label_range

    @property
    def needs_labels(self) -> bool:
        """The inner loss's."""
        return self.loss.needs_labels

    @property
    def takes_labels(self) -> bool:
        """The inner loss's."""
        return self.loss.takes_labels

    @property
    def needs_guide(self) -> bool:
        """The inner loss's."""
        return self.loss.needs_guide

    @property
    def needs_text_ids(self) -> bool:
        """The inner loss's."""
        return self.loss.needs_text_ids

    @property
    def min_columns(self) -> int:
        """The inner loss's."""
        return self.loss.min_columns

    @property
    def max_columns(self) -> int | None:
        """The inner loss's."""
        return self.loss.max_columns

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Weighted sum of the inner losses. Raises ConfigError if a dimension exceeds D."""
        full = inputs.columns[0].shape[1]
        if max(self.dims) > full:
            raise ConfigError(
                "loss.dims",
                f"has {max(self.dims)} but embeddings have {full} dimensions",
                "lower it",
                value=list(self.dims),
            )
        assert self.weights is not None
        outputs = [
            self.loss(replace(inputs, columns=tuple(truncate(c, dim) for c in inputs.columns)))
            for dim in self.dims
        ]
        loss = sum(
            (weight * output.loss for weight, output in zip(self.weights[1:], outputs[1:])),
            self.weights[0] * outputs[0].loss,
        )
        shares = {f"loss_dim_{dim}": out.loss.detach() for dim, out in zip(self.dims, outputs)}
        return LossOutput(loss, outputs[0].metrics | shares)
