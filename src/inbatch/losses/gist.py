"""GIST: in-batch negatives that a guide model has cleared of false negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from inbatch.losses.base import Loss, LossInput, LossOutput, LossParameter, Published
from inbatch.losses.checks import check_choice, check_inputs
from inbatch.losses.filters import (
    MarginStrategy,
    check_margin,
    filtered_share,
    guide_filter,
    own_filter,
)
from inbatch.losses.lists import as_lists, list_cross_entropy
from inbatch.losses.softmax.cross_entropy import similarity_metrics, streamed_cross_entropy
from inbatch.losses.softmax.forms import FORMS, Form
from inbatch.losses.softmax.implementation import IMPLEMENTATIONS, Implementation
from inbatch.losses.softmax.panels import Block, GuideFilter
from inbatch.losses.softmax.ragged_spec import DOCUMENTS, NEGATIVES, Negatives, make_pairs
from inbatch.losses.temperature import (
    Temperature,
    check_temperature,
    temperature_metrics,
    temperature_of,
    temperature_parameters,
)

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

    ``temperature="learned"`` as in `MultipleNegativesRanking`.

    With `self_guided` the model is its own guide: the scores of the softmax, detached, are compared with
    s(a_i, p_i), so that there is no guide model, nothing is embedded twice, and no product is computed twice.
    That equals a guide with the model's own embeddings of the step.

    Takes any number of negatives. All candidates, queries included, are those of the global batch.
    Paper: Solatorio 2024, GISTEmbed, arXiv:2402.16829.

    Equals sentence-transformers' GISTEmbedLoss and CachedGISTEmbedLoss on one process, except that:

    - Self pairs s(a_i, a_i), s(p_i, p_i) are always left out. There they are left out only because
      the guide scores them 1, above the threshold; where t_i is 1 (the positive is the query's
      text) they stay as negatives that no training can push away: three such rows with orthogonal
      texts give log 3 there and 0 here. With a negative margin the same happens to other rows.
    - Over several ranks it compares queries with the queries of their own rank only.
    """

    temperature: Temperature = 0.01
    initial_temperature: float | None = None  # of a learned one
    margin_strategy: MarginStrategy = "absolute"
    margin: float = 0.0
    self_guided: bool = False
    contrast_anchors: bool = True
    contrast_positives: bool = True
    mask_duplicates: bool | None = None
    positive_form: Form = "each"
    negatives: Negatives = "all"
    implementation: Implementation = "auto"  # of the softmax, see `streamed_cross_entropy`

    takes_lists: ClassVar[bool] = True
    ignores_lengths: ClassVar[bool] = True
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        check_temperature(self.temperature, self.initial_temperature)
        check_margin(self.margin, self.margin_strategy)
        check_choice("positive_form", self.positive_form, FORMS)
        check_choice("negatives", self.negatives, NEGATIVES)
        check_choice("implementation", self.implementation, IMPLEMENTATIONS)

    def parameters(self, *, dim: int, guide_dim: int | None) -> Mapping[str, LossParameter]:
        """The temperature where it is learned."""
        return temperature_parameters(self.temperature, self.initial_temperature)

    @property
    def needs_guide(self) -> bool:
        """True unless the model is its own guide."""
        return not self.self_guided

    @property
    def filters_by_guide(self) -> bool:
        """True unless the model is its own guide."""
        return not self.self_guided

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
        temperature = temperature_of(self.temperature, inputs)
        loss, stats = streamed_cross_entropy(
            inputs.columns,
            blocks,
            rows=inputs.rows,
            temperature=temperature,
            guide=self._filter(inputs),
            text_ids=inputs.text_ids if self.mask_duplicates else None,
            implementation=self.implementation,
            ring=inputs.ring,
            panel_halvings=inputs.panel_halvings,
            exact_in=inputs.exact_in,
            mixed=inputs.mixed,
        )
        share = filtered_share(
            stats.filtered,
            [blocks],
            num_global=inputs.num_global,
            num_rows=inputs.rows.stop - inputs.rows.start,
        )
        metrics = similarity_metrics(stats) | {"filtered_share": share}
        return LossOutput(loss, metrics | temperature_metrics(temperature))

    def _of_lists(self, inputs: LossInput) -> LossOutput:
        """The same of rows with lists of documents."""
        assert inputs.documents is not None
        temperature = temperature_of(self.temperature, inputs)
        pairs = make_pairs(inputs.documents, inputs.columns[0])
        blocks = self._blocks(num_columns=2)
        loss, stats, possible = list_cross_entropy(
            inputs,
            blocks,
            among_positives=frozenset(k for k, b in enumerate(blocks) if b.rows == DOCUMENTS),
            form=self.positive_form,
            negatives=self.negatives,
            temperature=temperature,
            implementation=self.implementation,
            guide=self._filter(inputs, (pairs.row + inputs.rows.start, pairs.doc)),
            masked=bool(self.mask_duplicates),
        )
        share = stats.filtered / possible.clamp_min(1)
        metrics = similarity_metrics(stats) | {"filtered_share": share}
        return LossOutput(loss, metrics | temperature_metrics(temperature))

    def _filter(self, inputs: LossInput, pairs: tuple[Tensor, Tensor] | None = None) -> GuideFilter:
        columns = inputs.columns if self.self_guided else inputs.guide or ()
        make = own_filter if self.self_guided else guide_filter
        return make(columns, margin_strategy=self.margin_strategy, margin=self.margin, pairs=pairs)

    def _blocks(self, num_columns: int) -> list[Block]:
        blocks = [Block(0, 1, "positive")]
        if self.contrast_anchors:
            blocks.append(Block(0, 0, "masked"))
        if self.contrast_positives:
            blocks.append(Block(1, 1, "masked"))
        return blocks + [Block(0, k, "plain") for k in range(2, num_columns)]
