"""Matryoshka: a loss of embeddings that are also good when cut short. Shape letter: D dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, LossParameter, Published
from inbatch.losses.checks import check_number
from inbatch.losses.pairs import full_precision


class _Truncated(torch.autograd.Function):
    """The first dimensions of embeddings, as often as asked for.

    Backward adds each gradient to the dimensions that it has. Slices would each fill up theirs with zeros.
    """

    @staticmethod
    def forward(ctx: Any, dims: Sequence[int], column_GD: Tensor) -> tuple[Tensor, ...]:
        ctx.shape, ctx.dims = column_GD.shape, dims
        return tuple(column_GD[:, :dim] for dim in dims)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        total_GD = grads[0].new_zeros(ctx.shape)
        for dim, grad in zip(ctx.dims, grads):
            total_GD[:, :dim] += grad
        return None, total_GD


def truncate(inputs: LossInput, dims: Sequence[int], *, unit_length: bool) -> list[LossInput]:
    """The first dimensions of each embedding, for each of `dims`; at unit length if asked for."""
    by_column = [_Truncated.apply(dims, column) for column in inputs.columns]
    if not unit_length:
        return [replace(inputs, columns=cut) for cut in zip(*by_column)]
    by_column = [[normalize(full_precision(c), dim=1) for c in cut] for cut in by_column]
    return [replace(inputs, columns=units, exact_in=None) for units in zip(*by_column)]


_OF_DIM = "_dim_"

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
    whole; without a guide each dimension goes by its own scores). Put the full dimension among `dims` if the
    uncut embeddings are to be trained. Metrics are those of the largest dimension, and the inner loss of
    each as ``loss_dim_{dim}``.
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
        for loss in self.loss.nested():
            if loss.matches_guide:
                raise ConfigError(
                    "loss.loss",
                    "compares whole embeddings with the guide's, which are not cut",
                    "put it beside the Matryoshka loss, in a WeightedSum",
                    value=type(loss).__name__,
                )
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
    def labels_are_classes(self) -> bool:
        """The inner loss's."""
        return self.loss.labels_are_classes

    @property
    def needs_guide(self) -> bool:
        """The inner loss's."""
        return self.loss.needs_guide

    @property
    def filters_by_guide(self) -> bool:
        """The inner loss's."""
        return self.loss.filters_by_guide

    @property
    def needs_text_ids(self) -> bool:
        """The inner loss's."""
        return self.loss.needs_text_ids

    @property
    def needs_scores(self) -> bool:
        """The inner loss's."""
        return self.loss.needs_scores

    @property
    def takes_lists(self) -> bool:
        """The inner loss's."""
        return self.loss.takes_lists

    @property
    def takes_ring(self) -> bool:
        """The inner loss's."""
        return self.loss.takes_ring

    @property
    def min_columns(self) -> int:
        """The inner loss's."""
        return self.loss.min_columns

    @property
    def min_columns_of_lists(self) -> int:
        """The inner loss's."""
        return self.loss.min_columns_of_lists

    @property
    def max_columns(self) -> int | None:
        """The inner loss's."""
        return self.loss.max_columns

    def parameters(self, *, dim: int, guide_dim: int | None) -> Mapping[str, LossParameter]:
        """The inner loss's: one for all dimensions where it has one shape, else ``name_dim_{dim}`` each."""
        by_dim = {d: self.loss.parameters(dim=d, guide_dim=guide_dim) for d in self.dims}
        found: dict[str, LossParameter] = {}
        for name in by_dim[self.dims[0]]:
            of_dims = {d: wanted[name] for d, wanted in by_dim.items()}
            if len({wanted.shape for wanted in of_dims.values()}) == 1:
                found[name] = of_dims[self.dims[0]]
            else:
                found |= {f"{name}{_OF_DIM}{d}": wanted for d, wanted in of_dims.items()}
        return found

    def _inner(self, parameters: Mapping[str, Tensor], dim: int) -> dict[str, Tensor]:
        """What the inner loss trains at a dimension, by its own names."""
        parts = {name: name.rpartition(_OF_DIM) for name in parameters}
        return {
            before or name: parameters[name]
            for name, (before, _, d) in parts.items()
            if not before or d == str(dim)
        }

    def nested(self) -> Iterator[Loss]:
        """With the inner losses."""
        yield self
        yield from self.loss.nested()

    def settled(self, *, lists: bool) -> Loss:
        """With the inner loss settled."""
        return replace(self, loss=self.loss.settled(lists=lists))

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
        # A loss of cosines divides by lengths itself, and takes 16-bit values as they are.
        unit_length = not self.loss.ignores_lengths
        cuts = truncate(inputs, self.dims, unit_length=unit_length)
        outputs = [
            self.loss(replace(cut, parameters=self._inner(inputs.parameters, dim)))
            for dim, cut in zip(self.dims, cuts)
        ]
        loss = sum(
            (weight * output.loss for weight, output in zip(self.weights[1:], outputs[1:])),
            self.weights[0] * outputs[0].loss,
        )
        shares = {f"loss_dim_{dim}": out.loss.detach() for dim, out in zip(self.dims, outputs)}
        return LossOutput(loss, outputs[0].metrics | shares)
