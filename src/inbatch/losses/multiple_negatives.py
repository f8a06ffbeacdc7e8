"""Multiple negatives ranking, or InfoNCE: every other example of the batch is a negative.

Shape letters as in `softmax.cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.lists import as_lists, list_cross_entropy
from inbatch.losses.softmax.cross_entropy import similarity_metrics, streamed_cross_entropy
from inbatch.losses.softmax.forms import FORMS, Form
from inbatch.losses.softmax.implementation import IMPLEMENTATIONS, Implementation
from inbatch.losses.softmax.panels import Block
from inbatch.losses.softmax.ragged_spec import DOCUMENTS, NEGATIVES, QUERIES, Negatives

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
HardnessMode = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
Hardened = Literal["none", "own", "others", "all"]

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


_PUBLISHED = Published(
    "MultipleNegativesRankingLoss",
    cached_name="CachedMultipleNegativesRankingLoss",
    bibtex="""@misc{henderson2017efficient,
    title = {Efficient Natural Language Response Suggestion for Smart Reply},
    author = {Matthew Henderson and Rami Al-Rfou and Brian Strope and Yun-hsuan Sung and
        Laszlo Lukacs and Ruiqi Guo and Sanjiv Kumar and Balint Miklos and Ray Kurzweil},
    year = {2017},
    eprint = {1705.00652},
    archivePrefix = {arXiv},
    primaryClass = {cs.CL}
}""",
)


@dataclass(frozen=True)
class MultipleNegativesRanking(Loss):
    """Cross-entropy of each query's positive against the other texts of the global batch.

    With queries q, documents d (the positives and all negatives) and similarity s::

        loss_i = log sum_candidates exp(s / temperature) - s(q_i, d_i) / temperature

    The candidates of row i, by direction:

    - query_to_doc: s(q_i, d) for all documents; always on, for it holds the positive.
    - query_to_query: s(q_i, q_j) for j != i.
    - doc_to_query: s(q_j, d_i) for all queries, d_i being the positive of row i.
    - doc_to_doc: s(d_i, d) for all documents of other queries.

    ``partition_mode="joint"`` has one softmax over all of them; "per_direction" averages the losses
    of one softmax for query_to_doc and one for doc_to_query, and takes no other direction.

    Hardness adds ``hardness_strength * s`` (no gradient) to query_to_doc logits: those of documents
    of other queries (in_batch_negatives), of own negatives (hard_negatives) or of both
    (all_negatives).

    With `mask_duplicates` a query's known positives are no negatives of it: texts equal to its own or to its
    positive's, and query and positive of rows that share one with it. None is true for rows with lists, whose
    negatives samplers do not keep apart, and false for others.

    Where rows have lists of positives, `positive_form` says what they make, see `softmax.forms`: "each" has
    every positive against the negatives alone, and averages over the positives of a row; "mean" leaves the
    other positives in the denominator; "sum" is satisfied by one good positive. All positives of a row are
    known positives of it. ``negatives="own"`` leaves the negatives of other rows out, not their positives.

    Equals sentence-transformers' MultipleNegativesRankingLoss and its cached form with
    ``scale = 1 / temperature``, gathered over ranks where ranks own slices of the rows.
    Papers: van den Oord et al. 2018, arXiv:1807.03748; symmetric: Günther et al. 2023,
    arXiv:2310.19923; all directions: Li et al. 2023, arXiv:2308.03281; hardness: Lan et al. 2025,
    arXiv:2503.04812, Schechter Vera et al. 2025, arXiv:2509.20354.
    """

    temperature: float = 0.05
    similarity: Literal["cosine", "dot"] = "cosine"
    directions: Sequence[Direction] = ("query_to_doc",)
    partition_mode: Literal["joint", "per_direction"] = "joint"
    hardness_mode: HardnessMode | None = None
    hardness_strength: float = 0.0
    mask_duplicates: bool | None = None
    positive_form: Form = "each"
    negatives: Negatives = "all"
    implementation: Implementation = "auto"  # of the softmax, see `streamed_cross_entropy`

    takes_lists: ClassVar[bool] = True
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", tuple(self.directions))
        check_number("temperature", self.temperature, above=0)
        check_choice("similarity", self.similarity, ("cosine", "dot"))
        for direction in self.directions:
            check_choice("directions", direction, DIRECTIONS)
        check_choice("partition_mode", self.partition_mode, ("joint", "per_direction"))
        modes = (None, "in_batch_negatives", "hard_negatives", "all_negatives")
        check_choice("hardness_mode", self.hardness_mode, modes)
        check_number("hardness_strength", self.hardness_strength)
        check_choice("positive_form", self.positive_form, FORMS)
        check_choice("negatives", self.negatives, NEGATIVES)
        check_choice("implementation", self.implementation, IMPLEMENTATIONS)
        self._check_combination()

    def _check_combination(self) -> None:
        if "query_to_doc" not in self.directions:
            raise ConfigError(
                "directions",
                "lacks the direction with the positive",
                "add query_to_doc",
                value=list(self.directions),
            )
        if len(set(self.directions)) != len(self.directions):
            raise ConfigError(
                "directions",
                "names a direction twice",
                "name each once",
                value=list(self.directions),
            )
        within = {"query_to_query", "doc_to_doc"} & set(self.directions)
        if self.partition_mode == "per_direction" and within:
            raise ConfigError(
                "directions",
                f"has {', '.join(sorted(within))}, whose softmax would have no positive",
                "set partition_mode to joint or leave these directions out",
            )
        if self.hardness_strength < 0 or (self.hardness_mode is None and self.hardness_strength):
            raise ConfigError(
                "hardness_strength",
                f"does not go with hardness_mode={self.hardness_mode}",
                "set a strength of at least 0, and a mode if it is above 0",
                value=self.hardness_strength,
            )

    @property
    def ignores_lengths(self) -> bool:
        """True of cosines."""
        return self.similarity == "cosine"

    @property
    def needs_text_ids(self) -> bool:
        """True if duplicates are masked."""
        return bool(self.mask_duplicates)

    def settled(self, *, lists: bool) -> Loss:
        """With lists known positives are masked unless the user says otherwise."""
        return replace(self, mask_duplicates=lists) if self.mask_duplicates is None else self

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError for fewer than two columns."""
        check_inputs(self, inputs)
        if inputs.documents is not None or self.negatives == "own":
            return self._of_lists(as_lists(inputs))
        losses: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        for blocks in self._softmaxes(len(inputs.columns)):
            loss, stats = streamed_cross_entropy(
                inputs.columns,
                blocks,
                rows=inputs.rows,
                temperature=self.temperature,
                normalize=self.similarity == "cosine",
                hardness_strength=self.hardness_strength,
                text_ids=inputs.text_ids if self.mask_duplicates else None,
                implementation=self.implementation,
                ring=inputs.ring,
                panel_halvings=inputs.panel_halvings,
                exact_in=inputs.exact_in,
                mixed=inputs.mixed,
            )
            losses.append(loss)
            metrics = metrics or similarity_metrics(stats)
        return LossOutput(torch.stack(losses).mean(), metrics)

    def _of_lists(self, inputs: LossInput) -> LossOutput:
        """The same of rows with lists of documents."""
        found = [
            list_cross_entropy(
                inputs,
                blocks,
                # A document has one query.
                form=self.positive_form if blocks[0].rows == QUERIES else "each",
                negatives=self.negatives,
                temperature=self.temperature,
                implementation=self.implementation,
                normalize=self.similarity == "cosine",
                hardness_strength=self.hardness_strength,
                masked=bool(self.mask_duplicates),
            )
            for blocks in self._softmaxes_of_lists()
        ]
        losses = [loss for loss, _, _ in found]
        return LossOutput(torch.stack(losses).mean(), similarity_metrics(found[0][1]))

    def _softmaxes_of_lists(self) -> list[list[Block]]:
        """As `_softmaxes`; all documents are one column."""
        modes: dict[HardnessMode | None, Hardened] = {
            "in_batch_negatives": "others",
            "hard_negatives": "own",
            "all_negatives": "all",
        }
        hardened = modes.get(self.hardness_mode, "none") if self.hardness_strength else "none"
        forward = [Block(QUERIES, DOCUMENTS, "positive", hardened)]
        if self.partition_mode == "per_direction":
            backward = [[Block(DOCUMENTS, QUERIES, "positive")]]
            return [forward, *(backward if "doc_to_query" in self.directions else [])]
        if "query_to_query" in self.directions:
            forward.append(Block(QUERIES, QUERIES, "masked"))
        if "doc_to_query" in self.directions:
            forward.append(Block(DOCUMENTS, QUERIES, "plain"))
        if "doc_to_doc" in self.directions:
            forward.append(Block(DOCUMENTS, DOCUMENTS, "masked"))
        return [forward]

    def _softmaxes(self, num_columns: int) -> list[list[Block]]:
        """The blocks of each softmax; the first one is query_to_doc's."""
        documents = range(1, num_columns)
        forward = [
            Block(0, k, "positive" if k == 1 else "plain", self._hardened(k)) for k in documents
        ]
        if self.partition_mode == "per_direction":
            # s(q_i, d_i) is the positive of both directions.
            backward = [[Block(1, 0, "positive")]] if "doc_to_query" in self.directions else []
            return [forward, *backward]
        if "query_to_query" in self.directions:
            forward.append(Block(0, 0, "masked"))
        if "doc_to_query" in self.directions:
            forward.append(Block(1, 0, "plain"))
        if "doc_to_doc" in self.directions:
            forward.extend(Block(1, k, "masked") for k in documents)
        return [forward]

    def _hardened(self, document: int) -> Hardened:
        """Which logits of a query_to_doc block are hardened; the positive's never is."""
        if self.hardness_strength == 0:
            return "none"
        if self.hardness_mode == "in_batch_negatives":
            return "others"
        if document == 1:
            return "others" if self.hardness_mode == "all_negatives" else "none"
        return "all" if self.hardness_mode == "all_negatives" else "own"
