"""The inputs and results of a loss. Shape letters: G global rows, B rows this rank owns, D dimension.

Scale contract: a loss returns the mean over the rows that this rank owns. The gather's backward sums
over ranks. The strategy averages gradients over ranks. So the update equals that of one process with
the global batch. A loss whose value is not a mean over rows (CoSENT's log-sum-exp over pairs, say) sets
``scope = "global"`` and returns the value of the global batch on every rank; the same average holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

MOST_PANEL_HALVINGS = 12  # a panel of 4,096 rows has one then


class InFlight(Protocol):
    """Tensors under way."""

    def wait(self) -> list[Tensor]:
        """The tensors."""


class Ring(Protocol):
    """The way of rows from rank to rank, where none holds those of all."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows of each rank."""

    @property
    def rank(self) -> int:
        """This one."""

    @property
    def lower(self) -> Callable[[], int | None]:
        """What a rank calls that has run out of memory between two hops: it makes memory free, and returns
        `panel_halvings` to go on with, or None where there is nothing left to give."""

    def hops(self, tensors: Sequence[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
        """Owner and tensors [C, rows of the owner, ...]: the own ones, and then those of all other ranks.

        The next ones are under way while the caller works on those that it has. Ranks call it together.
        """

    def pass_on(self, tensor: Tensor, owner: int) -> InFlight:
        """Send on something [C, rows of the owner, ...] and receive the same from the next hop's owner."""


class VisibleDocuments(NamedTuple):
    """The documents of a ragged global batch, sorted by their rows.

    Of the rows of other ranks only the device knows how many they have, so that no host waits for it.
    Shape letters: G rows, M documents, B rows this rank owns.
    """

    owner: Tensor  # int64 [M], row of each document
    is_positive: Tensor  # bool [M], a row's positives come before its negatives
    first: int  # first document of the owned rows
    counts: np.ndarray  # int64 [B], on the host: documents of each owned row
    positives: np.ndarray  # int64 [B], on the host: how many of them are positives, at least 1


class LossParameter(NamedTuple):
    """A parameter that a loss trains, and that the module of a run holds beside the encoder's."""

    shape: tuple[int, ...]  # of one dimension or more: FSDP2 knows no scalars
    fill: Callable[
        [Tensor, torch.Generator], object
    ]  # writes the initial value; alike on all ranks
    most: float | None = None  # no value is larger after an optimizer step; None for no bound


@dataclass(frozen=True, slots=True)
class LossInput:
    """Embeddings of the global batch, the same on every rank, and the rows that this rank owns.

    With a `ring` all tensors hold the rows of this rank only, and `rows` is all of them.
    """

    columns: tuple[Tensor, ...]  # each [G, D]: query, positive, negatives; not normalised
    rows: slice  # start and stop are set; B = stop - start >= 1
    labels: Tensor | None = None  # [G]
    guide: tuple[Tensor, ...] | None = None  # each [G, Dg], of any length, without gradient
    text_ids: tuple[Tensor, ...] | None = None  # each [G] int64, equal where texts are equal
    ring: Ring | None = None
    # A 16-bit type that holds the columns' values exactly, whatever type they have; None for none.
    exact_in: torch.dtype | None = None
    # The encoder computes in 16 bits, so that gradients need no more digits.
    mixed: bool = False
    # Halvings of the rows that are scored at a time; only the order of sums depends on it.
    panel_halvings: int = 0
    # Of ragged rows; `columns`, `guide` and `text_ids` are then queries [G, ...] and documents [M, ...].
    documents: VisibleDocuments | None = None
    # Scores of a teacher, float32, for the documents of the owned rows, B * (C - 1) of rows in C columns: by
    # row, a row's positives first. They are not gathered, since a row's own candidates are on its rank. NaN:
    # none, which a loss that `needs_scores` does not see; None: the data have no column of scores.
    scores: Tensor | None = None
    # What the loss trains, by the names of `Loss.parameters`; the same on every rank.
    parameters: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_global(self) -> int:
        """G."""
        return len(self.columns[0]) if self.ring is None else sum(self.ring.counts)


class LossOutput(NamedTuple):
    """A scalar with gradient, and detached scalars to log."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Published(NamedTuple):
    """A loss as the field knows it, for model cards.

    name: in sentence-transformers; None where it has no such loss.
    cached_name: the same with gradient caching.
    bibtex: the paper.
    heading: above the paper in a card; None for `name`.
    """

    name: str | None
    cached_name: str | None = None
    bibtex: str | None = None
    heading: str | None = None


class Loss(ABC):
    """Base class of losses: a frozen dataclass of hyperparameters that can be called.

    A subclass overrides what differs from the defaults below, as class variables or properties. Nothing
    else names it: checks, planner, card and the tests over ranks read these.
    """

    @property
    def scope(self) -> Literal["row", "candidates", "global"]:
        """ "row": a mean over the owned rows that needs no others (no gather); "candidates": a mean over
        the owned rows against columns of the global batch; "global": one value of the global batch."""
        return "candidates"

    @property
    def ignores_lengths(self) -> bool:
        """True if embeddings count by their direction only, and need not be brought to unit length."""
        return False

    @property
    def needs_labels(self) -> bool:
        """True if every source must have labels."""
        return False

    @property
    def takes_labels(self) -> bool:
        """True if labels change the loss where there are some."""
        return self.needs_labels

    @property
    def label_range(self) -> tuple[float, float] | None:
        """Least and largest label that make sense; None for any."""
        return None

    @property
    def labels_are_classes(self) -> bool:
        """True if rows of equal labels belong together, and a label's value means nothing."""
        return False

    @property
    def needs_guide(self) -> bool:
        """True if the guide's embeddings are needed."""
        return False

    @property
    def filters_by_guide(self) -> bool:
        """True if the guide decides which negatives are left out."""
        return False

    @property
    def matches_guide(self) -> bool:
        """True if the student's embeddings must have as many dimensions as the guide's."""
        return False

    @property
    def needs_text_ids(self) -> bool:
        """True if `LossInput.text_ids` is needed."""
        return False

    @property
    def needs_scores(self) -> bool:
        """True if every document must have a score, see `LossInput.scores`."""
        return False

    def parameters(self, *, dim: int, guide_dim: int | None) -> Mapping[str, LossParameter]:
        """What the loss trains beside the encoder; a call finds the values in `LossInput.parameters`.

        They have no weight decay, and their gradient is averaged over ranks like that of embeddings: that of
        the rank's own value.

        Args:
            dim: D.
            guide_dim: of the guide's embeddings; None without a guide.
        """
        return {}

    @property
    def takes_lists(self) -> bool:
        """True if rows may have lists of positives and negatives."""
        return False

    @property
    def takes_ring(self) -> bool:
        """True if, of scope "candidates", it can do with rows that visit in turn (`LossInput.ring`)."""
        return True

    @property
    def min_columns(self) -> int:
        """Fewest text columns."""
        return 2

    @property
    def min_columns_of_lists(self) -> int:
        """The same of data whose rows have lists."""
        return self.min_columns

    @property
    def max_columns(self) -> int | None:
        """Most text columns; None for no limit."""
        return None

    @property
    def published(self) -> Published | None:
        """Name and paper for the model card; None for the name of the class and no paper."""
        return None

    def nested(self) -> Iterator[Loss]:
        """The loss, and all losses inside it."""
        yield self

    def settled(self, *, lists: bool) -> Loss:
        """The loss with the defaults filled in that depend on whether its rows have lists of texts."""
        return self

    @abstractmethod
    def __call__(self, inputs: LossInput) -> LossOutput:
        """The loss of the owned rows, and scalars to log."""
