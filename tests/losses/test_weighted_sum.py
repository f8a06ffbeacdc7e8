"""Weighted sums of losses: values, one sweep where two agree, and what they need and take."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from helpers.losses_oracle import assert_same, leaves, random_columns
from helpers.ragged_batches import make_rows, union_input
from inbatch.errors import ConfigError
from inbatch.losses import (
    GIST,
    BatchHardTriplet,
    Contrastive,
    CoSENT,
    CosineSimilarity,
    EmbeddingMSE,
    GlobalOrthogonalRegularization,
    InBatchKL,
    Loss,
    LossInput,
    MarginMSE,
    Matryoshka,
    MultipleNegativesRanking,
    Triplet,
    WeightedSum,
)
from inbatch.losses.one_sweep import agreeing

ROWS, DIM = 13, 6
ALL: Any = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


def example(dtype: torch.dtype = torch.float64) -> LossInput:
    columns = random_columns(3, ROWS, DIM)
    return LossInput(
        tuple(c.to(dtype) for c in columns),
        slice(2, 11),
        guide=tuple(c.to(dtype) for c in random_columns(3, ROWS, DIM, seed=1)),
        text_ids=tuple(torch.arange(ROWS) + ROWS * k for k in range(3)),
        scores=random_columns(1, 9, 2, seed=3)[0].flatten().to(dtype),
    )


def result(loss: Loss, inputs: LossInput) -> Any:
    columns = leaves(inputs.columns)
    value = loss(replace(inputs, columns=tuple(columns))).loss
    return value.detach(), list(torch.autograd.grad(value, columns))


def summed(losses: list[Loss], weights: list[float], inputs: LossInput) -> Any:
    found = [result(loss, inputs) for loss in losses]
    value = sum(weight * each[0] for weight, each in zip(weights, found))
    gradients = [
        sum(weight * each[1][k] for weight, each in zip(weights, found))
        for k in range(len(inputs.columns))
    ]
    return value, gradients


AGREEING: dict[str, tuple[Loss, Loss]] = {
    "defaults": (MultipleNegativesRanking(), InBatchKL()),
    "all directions": (
        MultipleNegativesRanking(temperature=0.1, directions=ALL),
        InBatchKL(0.1, 0.02, directions=ALL[::-1]),
    ),
    "dot": (
        MultipleNegativesRanking(temperature=1.0, similarity="dot", positive_form="sum"),
        InBatchKL(1.0, 0.3, similarity="dot"),
    ),
}
# What changes the contrastive softmax alone.
DIFFERENT: dict[str, Loss] = {
    "temperature": MultipleNegativesRanking(temperature=0.051),
    "similarity": MultipleNegativesRanking(similarity="dot"),
    "directions": MultipleNegativesRanking(directions=ALL),
    "mask": MultipleNegativesRanking(mask_duplicates=True),
    "mask by own scores": MultipleNegativesRanking(mask_margin=0.0),
    "hardness": MultipleNegativesRanking(hardness_mode="all_negatives", hardness_strength=1.0),
    "own negatives": MultipleNegativesRanking(negatives="own"),
    "guided": GIST(temperature=0.05),
    "guided by itself": GIST(temperature=0.05, self_guided=True),
}


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.2, 3.0]], ids=["even", "uneven"])
@pytest.mark.parametrize("name", AGREEING)
def test_one_sweep_equals_the_sum_of_both(name: str, weights: list[float]) -> None:
    losses, inputs = list(AGREEING[name]), example()
    assert agreeing(losses, inputs) is not None
    wanted = summed(losses, weights, inputs)
    assert_same(result(WeightedSum(losses, weights), inputs), wanted, tolerance=1e-12)
    backwards = WeightedSum(losses[::-1], weights[::-1])
    assert_same(result(backwards, inputs), wanted, tolerance=1e-12)
    found, parts = WeightedSum(losses, weights)(inputs).metrics, [loss(inputs) for loss in losses]
    for loss, output in zip(losses, parts):
        prefix = type(loss).__name__
        torch.testing.assert_close(found.pop(f"{prefix}/loss"), output.loss)
        for key, metric in output.metrics.items():
            torch.testing.assert_close(found.pop(f"{prefix}/{key}"), metric)
    assert not found


@pytest.mark.parametrize("name", DIFFERENT)
def test_losses_that_differ_are_computed_apart(name: str) -> None:
    losses, inputs = [DIFFERENT[name], InBatchKL()], example()
    assert agreeing(losses, inputs) is None
    wanted = summed(losses, [1.0, 2.0], inputs)
    assert_same(result(WeightedSum(losses, [1.0, 2.0]), inputs), wanted)


def test_one_sweep_takes_a_third_of_the_products_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from inbatch.device import cpu_products

    count = [0]
    for name in ("product_in", "product", "add_product"):
        original = getattr(cpu_products, name)

        def counted(*args: Any, original: Any = original, **options: Any) -> Any:
            count[0] += 1
            return original(*args, **options)

        monkeypatch.setattr(cpu_products, name, counted)

    def products(losses: list[Loss]) -> int:
        count[0] = 0
        result(WeightedSum(losses), example())
        return count[0]

    documents = 2
    assert products([MultipleNegativesRanking(), InBatchKL()]) == 4 * documents
    assert products([DIFFERENT["temperature"], InBatchKL()]) == (3 + 4) * documents


def test_rows_with_lists_are_computed_apart() -> None:
    rows = make_rows(6)
    num_texts = sum(1 + len(p) + len(n) for _, p, n in rows)
    texts = [random_columns(1, num_texts, DIM, seed=seed)[0] for seed in (0, 1)]
    inputs = union_input(rows, *texts)
    losses = [MultipleNegativesRanking(), InBatchKL()]
    assert agreeing(losses, inputs) is None
    wanted = summed(losses, [1.0, 1.0], inputs)
    assert_same(result(WeightedSum(losses), inputs), wanted)


def test_it_needs_what_its_parts_need_and_takes_what_all_take() -> None:
    mnrl, margins = MultipleNegativesRanking(), MarginMSE()
    both = WeightedSum([mnrl, margins, EmbeddingMSE()])
    assert (both.scope, both.needs_scores, both.needs_guide) == ("candidates", True, True)
    assert both.min_columns == 3
    assert both.takes_lists
    assert not both.ignores_lengths
    assert WeightedSum([margins, CoSENT()]).scope == "global"
    assert WeightedSum([margins]).scope == "row"
    labelled = WeightedSum([CosineSimilarity(), Contrastive()])
    assert labelled.label_range == (0, 1)
    assert labelled.max_columns == 2
    assert labelled.needs_labels
    assert not WeightedSum([mnrl, Triplet()]).takes_lists
    assert WeightedSum([mnrl]).settled(lists=True).needs_text_ids
    assert [
        type(part).__name__ for part in WeightedSum([Matryoshka(mnrl, [4]), margins]).nested()
    ] == [*("WeightedSum", "Matryoshka", "MultipleNegativesRanking", "MarginMSE")]


def test_two_losses_of_a_class_have_numbers_in_the_metrics() -> None:
    found = WeightedSum([InBatchKL(), InBatchKL(0.1)])(example()).metrics
    assert {name.partition("/")[0] for name in found} == {"InBatchKL_1", "InBatchKL_2"}


@pytest.mark.parametrize(
    ("losses", "weights", "problem"),
    [
        ([], None, "is empty"),
        ([InBatchKL()], [1.0, 2.0], "weights has 2 entries for 1 losses"),
        ([InBatchKL()], [0.0], "is not a finite number above 0"),
    ],
    ids=["none", "too many weights", "no weight"],
)
def test_wrong_lists_are_refused(
    losses: list[Loss], weights: list[float] | None, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        WeightedSum(losses, weights)


def test_matryoshka_cuts_all_parts_and_refuses_losses_of_whole_embeddings() -> None:
    inputs = example()
    losses: list[Loss] = [MultipleNegativesRanking(), InBatchKL()]
    wanted = summed([Matryoshka(loss, [6, 3]) for loss in losses], [1.0, 1.0], inputs)
    assert_same(result(Matryoshka(WeightedSum(losses), [6, 3]), inputs), wanted)
    with pytest.raises(ConfigError, match="put it beside the Matryoshka loss, in a WeightedSum"):
        Matryoshka(WeightedSum([InBatchKL(), EmbeddingMSE()]), [6, 3])


def test_a_part_of_the_whole_batch_leaves_the_others_what_they_have() -> None:
    mnrl, spread = MultipleNegativesRanking(), GlobalOrthogonalRegularization()
    both = WeightedSum([mnrl, spread])
    assert (both.scope, both.takes_ring) == ("candidates", False)
    assert not Matryoshka(both, [6, 3]).takes_ring
    assert WeightedSum([mnrl, EmbeddingMSE()]).takes_ring
    assert WeightedSum([spread, EmbeddingMSE()]).scope == "global"


@pytest.mark.parametrize("bounds", [(0, 13), (0, 6, 13), (0, 4, 5, 13)])
def test_it_is_the_mean_over_ranks_beside_a_part_of_the_whole_batch(
    bounds: tuple[int, ...],
) -> None:
    loss = WeightedSum([MultipleNegativesRanking(), GlobalOrthogonalRegularization()], [1.0, 30.0])
    inputs = replace(example(), scores=None)
    wanted = result(loss, replace(inputs, rows=slice(0, ROWS)))
    ranks = [
        (result(loss, replace(inputs, rows=slice(*rank))), (rank[1] - rank[0]) / ROWS)
        for rank in pairwise(bounds)
    ]
    value = sum(share * found for (found, _), share in ranks)
    gradients = [sum(share * grads[k] for (_, grads), share in ranks) for k in range(3)]
    assert_same((value, gradients), wanted)


def test_labels_are_classes_to_all_parts_or_to_none() -> None:
    triplets = BatchHardTriplet()
    assert WeightedSum([triplets, GlobalOrthogonalRegularization()]).labels_are_classes
    assert not WeightedSum([CoSENT()]).labels_are_classes
    problem = (
        "BatchHardTriplet, to which labels are classes, beside CoSENT, to which they are scores"
    )
    with pytest.raises(ConfigError, match=problem):
        WeightedSum([triplets, CoSENT()])


def test_a_model_that_is_its_own_guide_filters_without_one() -> None:
    assert GIST().filters_by_guide
    assert not GIST(self_guided=True).filters_by_guide
