"""Multiple negatives ranking, or InfoNCE: every other example of the batch is a negative.

Shape letters as in `softmax.cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, LossParameter, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.directions import Direction, check_directions, further_blocks
from inbatch.losses.filters import MarginStrategy, check_margin, filtered_share, own_filter
from inbatch.losses.lists import as_lists, list_cross_entropy
from inbatch.losses.softmax.cross_entropy import similarity_metrics, streamed_cross_entropy
from inbatch.losses.softmax.forms import FORMS, Form
from inbatch.losses.softmax.implementation import IMPLEMENTATIONS, Implementation
from inbatch.losses.softmax.panels import Block, GuideFilter
from inbatch.losses.softmax.ragged_spec import (
    DOCUMENTS,
    NEGATIVES,
    QUERIES,
    Negatives,
    make_pairs,
)
from inbatch.losses.temperature import (
    Temperature,
    check_temperature,
    temperature_metrics,
    temperature_of,
    temperature_parameters,
)

HardnessMode = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
Hardened = Literal["none", "own", "others", "all"]


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

    With `mask_margin` candidates are left out whose own score, before hardness and without gradient, is above
    a threshold: t_i - mask_margin ("absolute") or t_i - |t_i| * mask_margin ("relative"), t_i = s(q_i, d_i).
    Equal scores, up to rounding, are kept, and so is the positive; a negative margin keeps what scores little
    more. Where rows have lists, each positive has a threshold, and with "sum" a row has the lowest of them.

    With `mask_duplicates` a query's known positives are no negatives of it: texts equal to its own or to its
    positive's, and query and positive of rows that share one with it. None is true for rows with lists, whose
    negatives samplers do not keep apart, and false for others.

    Where rows have lists of positives, `positive_form` says what they make, see `softmax.forms`: "each" has
    every positive against the negatives alone, and averages over the positives of a row; "mean" leaves the
    other positives in the denominator; "sum" is satisfied by one good positive. All positives of a row are
    known positives of it. ``negatives="own"`` leaves the negatives of other rows out, not their positives.

    ``temperature="learned"`` trains the temperature with the encoder, from `initial_temperature` on (None:
    0.05) and never below 0.01, see `losses.temperature`.

    Equals sentence-transformers' MultipleNegativesRankingLoss and its cached form with
    ``scale = 1 / temperature``, gathered over ranks where ranks own slices of the rows.
    Papers: van den Oord et al. 2018, arXiv:1807.03748; symmetric: Günther et al. 2023,
    arXiv:2310.19923; all directions: Li et al. 2023, arXiv:2308.03281; hardness: Lan et al. 2025,
    arXiv:2503.04812, Schechter Vera et al. 2025, arXiv:2509.20354.
    """

    temperature: Temperature = 0.05
    initial_temperature: float | None = None  # of a learned one
    similarity: Literal["cosine", "dot"] = "cosine"
    directions: Sequence[Direction] = ("query_to_doc",)
    partition_mode: Literal["joint", "per_direction"] = "joint"
    hardness_mode: HardnessMode | None = None
    hardness_strength: float = 0.0
    mask_margin: float | None = None
    mask_margin_strategy: MarginStrategy = "absolute"
    mask_duplicates: bool | None = None
    positive_form: Form = "each"
    negatives: Negatives = "all"
    implementation: Implementation = "auto"  # of the softmax, see `streamed_cross_entropy`

    takes_lists: ClassVar[bool] = True
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", tuple(self.directions))
        check_temperature(self.temperature, self.initial_temperature)
        check_choice("similarity", self.similarity, ("cosine", "dot"))
        check_directions(self.directions)
        check_choice("partition_mode", self.partition_mode, ("joint", "per_direction"))
        modes = (None, "in_batch_negatives", "hard_negatives", "all_negatives")
        check_choice("hardness_mode", self.hardness_mode, modes)
        check_number("hardness_strength", self.hardness_strength)
        check_margin(self.mask_margin, self.mask_margin_strategy, prefix="mask_")
        check_choice("positive_form", self.positive_form, FORMS)
        check_choice("negatives", self.negatives, NEGATIVES)
        check_choice("implementation", self.implementation, IMPLEMENTATIONS)
        self._check_combination()

    def _check_combination(self) -> None:
        within = {"query_to_query", "doc_to_doc"} & set(self.directions)
        if self.partition_mode == "per_direction" and within:
            raise ConfigError(
                "directions",
                f"has {', '.join(sorted(within))}, whose softmax would have no positive",
                "set partition_mode to joint or leave these directions out",
            )
        hardened = self.temperature == "learned" and self.hardness_strength
        if hardened and self.implementation == "triton":
            raise ConfigError(
                "implementation",
                "knows no learned temperature with hardness_strength",
                "set implementation to auto",
                value="triton",
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

    def parameters(self, *, dim: int, guide_dim: int | None) -> Mapping[str, LossParameter]:
        """The temperature where it is learned."""
        return temperature_parameters(self.temperature, self.initial_temperature)

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
        softmaxes = self._softmaxes(len(inputs.columns))
        temperature, mask = temperature_of(self.temperature, inputs), self._filter(inputs)
        found = [
            streamed_cross_entropy(
                inputs.columns,
                blocks,
                rows=inputs.rows,
                temperature=temperature,
                normalize=self.similarity == "cosine",
                hardness_strength=self.hardness_strength,
                guide=mask,
                text_ids=inputs.text_ids if self.mask_duplicates else None,
                implementation=self.implementation,
                ring=inputs.ring,
                panel_halvings=inputs.panel_halvings,
                exact_in=inputs.exact_in,
                mixed=inputs.mixed,
            )
            for blocks in softmaxes
        ]
        metrics = similarity_metrics(found[0][1]) | temperature_metrics(temperature)
        if mask is not None:
            metrics["filtered_share"] = filtered_share(
                torch.stack([stats.filtered for _, stats in found]).sum(),
                softmaxes,
                num_global=inputs.num_global,
                num_rows=inputs.rows.stop - inputs.rows.start,
            )
        return LossOutput(torch.stack([loss for loss, _ in found]).mean(), metrics)

    def _of_lists(self, inputs: LossInput) -> LossOutput:
        """The same of rows with lists of documents."""
        assert inputs.documents is not None
        temperature = temperature_of(self.temperature, inputs)
        pairs = make_pairs(inputs.documents, inputs.columns[0])
        mask = self._filter(inputs, (pairs.row + inputs.rows.start, pairs.doc))
        found = [
            list_cross_entropy(
                inputs,
                blocks,
                # A document has one query.
                form=self.positive_form if blocks[0].rows == QUERIES else "each",
                negatives=self.negatives,
                temperature=temperature,
                implementation=self.implementation,
                normalize=self.similarity == "cosine",
                hardness_strength=self.hardness_strength,
                guide=mask,
                masked=bool(self.mask_duplicates),
            )
            for blocks in self._softmaxes_of_lists()
        ]
        losses, stats, possible = zip(*found)
        metrics = similarity_metrics(stats[0]) | temperature_metrics(temperature)
        if mask is not None:
            filtered = torch.stack([each.filtered for each in stats]).sum()
            metrics["filtered_share"] = filtered / torch.stack(possible).sum().clamp_min(1)
        return LossOutput(torch.stack(losses).mean(), metrics)

    def _filter(
        self, inputs: LossInput, pairs: tuple[Tensor, Tensor] | None = None
    ) -> GuideFilter | None:
        """What the mask leaves out; None without one."""
        if self.mask_margin is None:
            return None
        return own_filter(
            inputs.columns,
            margin_strategy=self.mask_margin_strategy,
            margin=self.mask_margin,
            cosine=self.similarity == "cosine",
            pairs=pairs,
        )

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
        return [[*forward, *further_blocks(self.directions, num_columns)]]

    def _hardened(self, document: int) -> Hardened:
        """Which logits of a query_to_doc block are hardened; the positive's never is."""
        if self.hardness_strength == 0:
            return "none"
        if self.hardness_mode == "in_batch_negatives":
            return "others"
        if document == 1:
            return "others" if self.hardness_mode == "all_negatives" else "none"
        return "all" if self.hardness_mode == "all_negatives" else "own"
