"""False negatives by the model's own scores: `mask_margin`, and GIST that guides itself."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_ragged import ALL, DIRECTIONS, EXACT, HARDNESS, SHARED, error, mnrl, ours, wanted
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.losses_oracle import assert_same, leaves, random_columns
from helpers.losses_oracle import ours as of_columns
from helpers.ragged_oracle import Definition, make_batch, value_and_gradients
from inbatch.device.matmul_precision import exact_products, factor_rounding
from inbatch.errors import ConfigError
from inbatch.losses import GIST, LossInput, Matryoshka, MultipleNegativesRanking
from inbatch.losses.base import Loss
from inbatch.losses.softmax import walk

ROWS = 9
MARGINS = [(0.0, False), (0.4, False), (-0.2, False), (0.5, True), (3.0, False)]


@pytest.fixture(autouse=True)
def small_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels of at most three rows."""
    monkeypatch.setitem(walk.MAX_PANEL_ROWS, "cpu", 3)


@pytest.mark.parametrize("form", ["each", "mean", "sum"])
@pytest.mark.parametrize("directions", DIRECTIONS, ids="+".join)
def test_by_its_definition(form: str, directions: tuple[str, ...]) -> None:
    for (num_rows, shared, masked), negatives, (margin, relative) in itertools.product(
        SHARED, ["all", "own"], MARGINS[1:4:2]
    ):
        batch = make_batch(num_rows, shared=shared, seed=num_rows)
        definition = Definition(
            form=form,
            directions=frozenset(directions),
            masked=masked,
            negatives=negatives,
            temperature=0.05 if masked else 0.5,
            similarity="cosine" if num_rows < 7 else "dot",
            own_mask=True,
            margin=margin,
            relative=relative,
        )
        assert error(ours(mnrl(definition), batch), wanted(definition, batch)) < EXACT, definition


@pytest.mark.parametrize("form", ["each", "mean", "sum"])
def test_in_both_directions_apart(form: str) -> None:
    """With every margin."""
    for seed, (margin, relative) in itertools.product(range(2), MARGINS):
        batch = make_batch(6, shared=0.2, seed=seed)
        definition = Definition(
            form=form,
            directions=frozenset({ALL[0], ALL[2]}),
            per_direction=True,
            masked=bool(seed),
            own_mask=True,
            margin=margin,
            relative=relative,
        )
        assert error(ours(mnrl(definition), batch), wanted(definition, batch)) < EXACT


@pytest.mark.parametrize("mode", HARDNESS)
@pytest.mark.parametrize("form", ["each", "sum"])
def test_scores_are_compared_before_they_are_hardened(mode: str, form: str) -> None:
    for masked, margin in itertools.product([False, True], [0.0, 0.3]):
        batch = make_batch(6, shared=0.2, seed=3)
        definition = Definition(
            form=form,
            hardness_mode=mode,
            hardness_strength=5.0,
            masked=masked,
            own_mask=True,
            margin=margin,
        )
        assert error(ours(mnrl(definition), batch), wanted(definition, batch)) < EXACT


@pytest.mark.parametrize("num_columns", [2, 4])
@pytest.mark.parametrize("rows", [slice(0, ROWS), slice(3, 7)], ids=str)
def test_self_guided_equals_a_guide_with_the_same_embeddings(num_columns: int, rows: slice) -> None:
    columns = random_columns(num_columns, ROWS, 7)
    for margin, strategy in ((0.0, "absolute"), (0.1, "absolute"), (0.2, "relative")):
        guided = GIST(temperature=0.05, margin=margin, margin_strategy=strategy)
        alone = replace(guided, self_guided=True)
        assert guided.needs_guide
        assert not alone.needs_guide
        expected = of_columns(guided, columns, guide=columns, rows=rows)
        assert_same(of_columns(alone, columns, rows=rows), expected, tolerance=1e-13)
        metrics = alone(LossInput(tuple(columns), rows)).metrics
        reference = guided(LossInput(tuple(columns), rows, guide=tuple(columns))).metrics
        assert float(metrics["filtered_share"]) > 0
        assert {k: float(v) for k, v in metrics.items()} == pytest.approx(
            {k: float(v) for k, v in reference.items()}, abs=1e-13
        )


@pytest.mark.parametrize("form", ["each", "mean", "sum"])
def test_self_guided_lists_equal_a_guide_with_the_same_embeddings(form: str) -> None:
    batch = make_batch(8, shared=0.2)
    batch.guide = batch.columns
    guided = GIST(temperature=0.05, positive_form=form, mask_duplicates=True)  # type: ignore[arg-type]
    alone = replace(guided, self_guided=True)
    assert error(ours(alone, batch), ours(guided, batch)) < EXACT
    inputs = batch.inputs()
    share = alone(replace(inputs, guide=None)).metrics["filtered_share"]
    assert float(share) == float(guided(inputs).metrics["filtered_share"]) > 0


ALL_MASKED: list[Loss] = [
    MultipleNegativesRanking(mask_margin=3.0),
    MultipleNegativesRanking(directions=ALL[:2], mask_margin=3.0),
    MultipleNegativesRanking(directions=ALL[::2], partition_mode="per_direction", mask_margin=3.0),
    GIST(self_guided=True, margin=3.0),
]


@pytest.mark.parametrize("loss", ALL_MASKED, ids=str)
@pytest.mark.parametrize("lists", [False, True])
def test_without_any_negative_left(loss: Loss, lists: bool) -> None:
    batch = make_batch(7)
    inputs = batch.inputs() if lists else LossInput(tuple(random_columns(3, 7, 8)), slice(1, 6))
    columns = leaves(inputs.columns)
    output = loss(replace(inputs, columns=tuple(columns)))
    value, gradients = value_and_gradients(output.loss, columns)
    assert float(value) == 0
    assert not any(gradient.any() for gradient in gradients)
    assert float(output.metrics["filtered_share"]) == 1
    assert output.metrics["hardest_negative_similarity"].isnan()


def test_the_share_counts_what_is_above_the_threshold() -> None:
    """And neither the positive, nor the same score in the direction from documents to queries."""
    columns = random_columns(3, ROWS, 7)
    q, d, n = (normalize(column, dim=1) for column in columns)
    limit = ((q * d).sum(1) - 0.1)[:, None]
    above = torch.cat([q @ d.T > limit, q @ n.T > limit, d @ q.T > limit], 1)
    own = torch.arange(ROWS)
    above[own, own] = above[own, own + 2 * ROWS] = False
    loss = MultipleNegativesRanking(directions=ALL[::2], mask_margin=0.1)
    share = loss(LossInput(tuple(columns), slice(0, ROWS))).metrics["filtered_share"]
    assert float(share) == pytest.approx(float(above.sum()) / (ROWS * (3 * ROWS - 2)))
    assert above[own, own + ROWS].any()  # a row's own negative may be a false one


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [slice(0, 40), slice(11, 19)], ids=str)
def test_copies_of_the_positive_tie_with_it(
    similarity: Any, dtype: torch.dtype, rows: slice
) -> None:
    """Rounding must not remove some of them, whatever the length of a dot product."""
    columns = tuple(30 * c.to(dtype).expand(40, -1) for c in random_columns(2, 1, 384))
    temperature = 0.05 if similarity == "cosine" else 100.0
    for directions in (ALL[:1], ALL[::2]):
        loss = MultipleNegativesRanking(
            temperature=temperature, similarity=similarity, directions=directions, mask_margin=0.0
        )
        assert float(loss(LossInput(columns, rows)).metrics["filtered_share"]) == 0
        strict = replace(loss, mask_margin=1e-3, mask_margin_strategy="relative")
        assert float(strict(LossInput(columns, rows)).metrics["filtered_share"]) == 1


def test_products_in_tf32_widen_what_ties() -> None:
    assert factor_rounding(torch.float64) == factor_rounding(torch.float32) == 0
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert factor_rounding(torch.float32) == 2**-11
        assert factor_rounding(torch.float64) == 0
        with exact_products():
            assert factor_rounding(torch.float32) == 0
    finally:
        torch.set_float32_matmul_precision(before)


def test_each_size_of_matryoshka_by_its_own_scores() -> None:
    columns = random_columns(3, ROWS, 8)
    inner = MultipleNegativesRanking(mask_margin=0.1)
    value, gradients = of_columns(Matryoshka(inner, dims=[8, 3], weights=[1.0, 0.5]), columns)
    cut = leaves(columns)
    parts = [
        weight * inner(LossInput(tuple(c[:, :dim] for c in cut), slice(0, ROWS))).loss
        for dim, weight in ((8, 1.0), (3, 0.5))
    ]
    expected = value_and_gradients(torch.stack(parts).sum(), cut)
    assert_same((value, gradients), expected)


class _Products(TorchDispatchMode):
    """Counts matrix products."""

    num = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.num += "mm" in str(func)
        return func(*args, **(kwargs or {}))


def _products(loss: Loss, columns: list[Tensor]) -> int:
    inputs = LossInput(tuple(leaves(columns)), slice(0, ROWS), guide=tuple(columns))
    with _Products() as products:
        loss(inputs).loss.backward()
    return products.num


def test_nothing_is_multiplied_twice() -> None:
    columns = random_columns(3, ROWS, 7)
    plain, masked = MultipleNegativesRanking(), MultipleNegativesRanking(mask_margin=0.1)
    assert _products(masked, columns) == _products(plain, columns) > 0
    guided = GIST()
    alone = replace(guided, self_guided=True)
    assert 4 * _products(alone, columns) == 3 * _products(guided, columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_margin": float("nan")}, "mask_margin=nan"),
        ({"mask_margin": 0.1, "mask_margin_strategy": "both"}, "mask_margin_strategy='both'"),
        ({"mask_margin_strategy": "relative"}, "mask_margin_strategy='relative' has no margin"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultipleNegativesRanking(**options)
