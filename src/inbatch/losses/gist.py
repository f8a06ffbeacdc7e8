"""GIST: in-batch negatives that a guide model has cleared of false negatives.

Shape letters: G global rows, E guide dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.lists import as_lists, list_cross_entropy
from inbatch.losses.pairs import full_precision
from inbatch.losses.softmax.cross_entropy import similarity_metrics, streamed_cross_entropy
from inbatch.losses.softmax.forms import FORMS, Form
from inbatch.losses.softmax.implementation import IMPLEMENTATIONS, Implementation
from inbatch.losses.softmax.panels import Block, GuideFilter
from inbatch.losses.softmax.products import product_form
from inbatch.losses.softmax.ragged_spec import DOCUMENTS, NEGATIVES, Negatives, make_pairs

# Two equal texts score equal in exact arithmetic but not in floating point, where it depends on the
# place in a matrix product. Scores this close to the threshold count as equal to it.
TIE_ULPS = 16


def guide_filter(
    columns: Sequence[Tensor],
    *,
    margin_strategy: Literal["absolute", "relative"],
    margin: float,
    pairs: tuple[Tensor, Tensor] | None = None,
) -> GuideFilter:
    """Threshold of each row from the guide's score t of its query and positive, both [G, E].

    "absolute": ``t - margin``; "relative": ``t - |t| * margin``.

    Args:
        columns: guide embeddings of each column.
        margin_strategy, margin: see above.
        pairs: int64 [K], rows of the first two columns that are query and positive; None: each row is.
    """
    columns = [column.detach() for column in columns]
    in_16_bits = product_form(columns, mixed=True).in_16_bits  # and divided by lengths afterwards
    units = [normalize(full_precision(c), dim=1) for c in columns[: 2 if in_16_bits else None]]
    paired = units[:2] if pairs is None else [unit[of] for unit, of in zip(units, pairs)]
    own_G = (paired[0] * paired[1]).sum(1)
    slack_G = own_G.abs() * margin if margin_strategy == "relative" else margin
    threshold_G = own_G - slack_G + TIE_ULPS * torch.finfo(own_G.dtype).eps
    return GuideFilter(tuple(columns if in_16_bits else units), threshold_G)


_PUBLISHED = Published(
    "GISTEmbedLoss",
    cached_name="CachedGISTEmbedLoss",
    bibtex="""@misc{solatorio2024gistembed,
    title = {GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding
        Fine-tuning},
    author = {Aivin V. Solatorio},
    year = {2024},
    eprint = {2402.16829},
    archivePrefix = {arXiv},
    primaryClass = {cs.LG}
}""",
)


@dataclass(frozen=True)
class GIST(Loss):
    """Cross-entropy of each query's positive against the candidates that the guide lets pass.

    With queries a, positives p, negatives n_k and cosine s, row i has one softmax over::

        s(a_i, p_j)      all j; j = i is the positive and always kept
        s(a_i, a_j)      j != i, if contrast_anchors
        s(p_i, p_j)      j != i, if contrast_positives
        s(a_i, n_k,j)    all j and k

    divided by `temperature`. A candidate is left out if the guide's cosine of the same two texts is
    greater than the threshold t_i - margin (absolute) or t_i - |t_i| * margin (relative), where t_i
    is the guide's cosine of a_i and p_i. Equal scores, up to rounding, are kept.

    With `mask_duplicates` known positives are left out too, see `streamed_cross_entropy`; None as in
    `MultipleNegativesRanking`.

    Where rows have lists, each positive of a row has a threshold of its own, and p_j are the positives of
    other rows; `positive_form` and `negatives` as in `MultipleNegativesRanking`. With "sum" the candidates of
    a query have one threshold, the lowest of its positives'.

    Takes any number of negatives. All candidates, queries included, are those of the global batch.
    Paper: Solatorio 2024, GISTEmbed, arXiv:2402.16829.

    Equals sentence-transformers' GISTEmbedLoss and CachedGISTEmbedLoss on one process, except that:

    - Self pairs s(a_i, a_i), s(p_i, p_i) are always left out. There they are left out only because
      the guide scores them 1, above the threshold; where t_i is 1 (the positive is the query's
      text) they stay as negatives that no training can push away: three such rows with orthogonal
      texts give log 3 there and 0 here. With a negative margin the same happens to other rows.
    - Over several ranks it compares queries with the queries of their own rank only.
    """

    temperature: float = 0.01
    margin_strategy: Literal["absolute", "relative"] = "absolute"
    margin: float = 0.0
    contrast_anchors: bool = True
    contrast_positives: bool = True
    mask_duplicates: bool | None = None
    positive_form: Form = "each"
    negatives: Negatives = "all"
    implementation: Implementation = "auto"  # of the softmax, see `streamed_cross_entropy`

    needs_guide: ClassVar[bool] = True
    takes_lists: ClassVar[bool] = True
    ignores_lengths: ClassVar[bool] = True
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)
        check_choice("margin_strategy", self.margin_strategy, ("absolute", "relative"))
        check_number("margin", self.margin)
        check_choice("positive_form", self.positive_form, FORMS)
        check_choice("negatives", self.negatives, NEGATIVES)
        check_choice("implementation", self.implementation, IMPLEMENTATIONS)

    @property
    def needs_text_ids(self) -> bool:
        """True if duplicates are masked."""
        return bool(self.mask_duplicates)

    def settled(self, *, lists: bool) -> Loss:
        """With lists known positives are masked unless the user says otherwise."""
        return replace(self, mask_duplicates=lists) if self.mask_duplicates is None else self

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError without guide embeddings of each column."""
        check_inputs(self, inputs)
        if inputs.documents is not None or self.negatives == "own":
            return self._of_lists(as_lists(inputs))
        blocks = self._blocks(len(inputs.columns))
        loss, stats = streamed_cross_entropy(
            inputs.columns,
            blocks,
            rows=inputs.rows,
            temperature=self.temperature,
            guide=guide_filter(
                inputs.guide or (), margin_strategy=self.margin_strategy, margin=self.margin
            ),
            text_ids=inputs.text_ids if self.mask_duplicates else None,
            implementation=self.implementation,
            ring=inputs.ring,
            panel_halvings=inputs.panel_halvings,
            exact_in=inputs.exact_in,
            mixed=inputs.mixed,
        )
        num_negatives = sum(inputs.num_global - (block.own != "plain") for block in blocks)
        num_negatives *= inputs.rows.stop - inputs.rows.start
        share = stats.filtered / max(num_negatives, 1)
        return LossOutput(loss, similarity_metrics(stats) | {"filtered_share": share})

    def _of_lists(self, inputs: LossInput) -> LossOutput:
        """The same of rows with lists of documents."""
        assert inputs.documents is not None
        pairs = make_pairs(inputs.documents, inputs.columns[0])
        blocks = self._blocks(num_columns=2)
        loss, stats, possible = list_cross_entropy(
            inputs,
            blocks,
            among_positives=frozenset(k for k, b in enumerate(blocks) if b.rows == DOCUMENTS),
            form=self.positive_form,
            negatives=self.negatives,
            temperature=self.temperature,
            implementation=self.implementation,
            guide=guide_filter(
                inputs.guide or (),
                margin_strategy=self.margin_strategy,
                margin=self.margin,
                pairs=(pairs.row + inputs.rows.start, pairs.doc),
            ),
            masked=bool(self.mask_duplicates),
        )
        share = stats.filtered / possible.clamp_min(1)
        return LossOutput(loss, similarity_metrics(stats) | {"filtered_share": share})

    def _blocks(self, num_columns: int) -> list[Block]:
        blocks = [Block(0, 1, "positive")]
        if self.contrast_anchors:
            blocks.append(Block(0, 0, "masked"))
        if self.contrast_positives:
            blocks.append(Block(1, 1, "masked"))
        return blocks + [Block(0, k, "plain") for k in range(2, num_columns)]
