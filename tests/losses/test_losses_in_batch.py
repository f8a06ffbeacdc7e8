"""MultipleNegativesRanking and GIST against sentence-transformers."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from sentence_transformers.util import dot_score

from helpers.losses_oracle import (
    GivenEmbeddings,
    assert_same,
    ours,
    peer,
    random_columns,
    theirs,
    theirs_cached_gist,
)
from inbatch.errors import ConfigError
from inbatch.losses import GIST, LossInput, MultipleNegativesRanking

EXTRA = ("query_to_query", "doc_to_query", "doc_to_doc")
DIRECTIONS = [
    ("query_to_doc", *(name for name, on in zip(EXTRA, chosen) if on))
    for chosen in product([False, True], repeat=3)
]


@pytest.mark.parametrize("num_columns", [2, 3, 5])
@pytest.mark.parametrize("directions", DIRECTIONS, ids="-".join)
def test_joint_directions(directions: tuple[str, ...], num_columns: int) -> None:
    columns = random_columns(num_columns, 11, 7)
    loss = MultipleNegativesRanking(temperature=0.04, directions=directions)
    reference = peer.MultipleNegativesRankingLoss(
        GivenEmbeddings("student"), scale=25.0, directions=directions
    )
    assert_same(ours(loss, columns), theirs(reference, columns))


@pytest.mark.parametrize("num_columns", [2, 4])
@pytest.mark.parametrize("directions", [("query_to_doc",), ("query_to_doc", "doc_to_query")])
@pytest.mark.parametrize("mode", [None, "in_batch_negatives", "hard_negatives", "all_negatives"])
@pytest.mark.parametrize("partition", ["joint", "per_direction"])
def test_partition_and_hardness(
    partition: str, mode: str | None, directions: tuple[str, ...], num_columns: int
) -> None:
    columns = random_columns(num_columns, 11, 7)
    options = {
        "directions": directions,
        "partition_mode": partition,
        "hardness_mode": mode,
        "hardness_strength": 5.0 if mode else 0.0,
    }
    reference = peer.MultipleNegativesRankingLoss(GivenEmbeddings("student"), **options)
    loss = MultipleNegativesRanking(**options)
    assert_same(ours(loss, columns), theirs(reference, columns))


def test_dot_similarity() -> None:
    columns = random_columns(3, 11, 7)
    loss = MultipleNegativesRanking(similarity="dot", temperature=1.0)
    reference = peer.MultipleNegativesRankingLoss(
        GivenEmbeddings("student"), scale=1.0, similarity_fct=dot_score
    )
    assert_same(ours(loss, columns), theirs(reference, columns))


@pytest.mark.parametrize("num_columns", [2, 3, 5])
@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize("contrast", list(product([False, True], repeat=2)))
def test_gist(strategy: str, margin: float, contrast: tuple[bool, bool], num_columns: int) -> None:
    columns = random_columns(num_columns, 11, 7)
    guide = random_columns(num_columns, 11, 5, seed=3, noise=1.5)
    options = {
        "temperature": 0.05,
        "margin_strategy": strategy,
        "margin": margin,
        "contrast_anchors": contrast[0],
        "contrast_positives": contrast[1],
    }
    result = ours(GIST(**options), columns, guide=guide)
    assert_same(result, theirs_cached_gist(columns, guide, **options), tolerance=1e-11)
    if num_columns <= 3:
        models = GivenEmbeddings("student"), GivenEmbeddings("guide")
        reference = peer.GISTEmbedLoss(*models, **options)
        assert_same(result, theirs(reference, columns, guide=guide), tolerance=1e-11)


def test_gist_defaults_in_float32() -> None:
    columns = [c.float() for c in random_columns(3, 64, 32)]
    guide = [c.float() for c in random_columns(3, 64, 16, seed=3)]
    assert_same(
        ours(GIST(), columns, guide=guide), theirs_cached_gist(columns, guide), tolerance=2e-5
    )


def test_gist_leaves_self_pairs_out_when_positive_equals_query() -> None:
    """The peer keeps s(a_i, a_i), s(p_i, p_i): the guide's score is not *above* the threshold."""
    texts = torch.eye(3, dtype=torch.float64)
    columns, guide = [texts, texts], [texts, texts]
    mine = ours(GIST(), columns, guide=guide)
    assert mine[0] < 1e-30
    assert max(float(grad.abs().max()) for grad in mine[1]) < 1e-30
    torch.testing.assert_close(
        float(theirs_cached_gist(columns, guide)[0]), math.log(3), rtol=0, atol=1e-12
    )
    inputs = LossInput(tuple(columns), slice(0, 3), guide=tuple(guide))
    metrics = GIST(temperature=0.5)(inputs).metrics
    assert float(metrics["filtered_share"]) == 0
    assert float(metrics["hardest_negative_similarity"]) == 0


@pytest.mark.parametrize("rows", [slice(0, 9), slice(4, 7)])
def test_gist_keeps_candidates_that_tie_with_the_positive(rows: slice) -> None:
    """Copies of a positive score the threshold itself; rounding must not remove some of them."""
    base = random_columns(2, 1, 384)
    guide = [column.float().expand(9, -1) for column in base]
    columns = [column.float() for column in random_columns(2, 9, 8)]
    inputs = LossInput(tuple(columns), rows, guide=tuple(guide))
    loss = GIST(contrast_anchors=False, contrast_positives=False)
    assert float(loss(inputs).metrics["filtered_share"]) == 0


def test_gist_without_any_negative_left() -> None:
    columns = random_columns(2, 6, 5)
    guide = [columns[0], -columns[0]]
    loss = GIST(contrast_anchors=False, contrast_positives=False, margin=2.0)
    value, grads = ours(loss, columns, guide=guide)
    assert float(value) == 0
    assert not any(grad.any() for grad in grads)


def test_filtered_share_counts_negatives_only() -> None:
    columns, guide = random_columns(3, 6, 5), random_columns(3, 6, 4, seed=1)
    inputs = LossInput(tuple(columns), slice(0, 6), guide=tuple(guide))
    assert float(GIST(margin=3.0)(inputs).metrics["filtered_share"]) == 1
    assert float(GIST(margin=-3.0)(inputs).metrics["filtered_share"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"similarity": "euclidean"}, "similarity='euclidean'"),
        ({"directions": ("query_to_query",)}, "add query_to_doc"),
        ({"directions": ()}, "add query_to_doc"),
        ({"directions": ("query_to_doc", "doc")}, "directions='doc'"),
        ({"directions": ("query_to_doc", "query_to_doc")}, "once"),
        (
            {"directions": ("query_to_doc", "doc_to_doc"), "partition_mode": "per_direction"},
            "partition_mode",
        ),
        ({"partition_mode": "both"}, "partition_mode='both'"),
        ({"hardness_mode": "all"}, "hardness_mode='all'"),
        ({"hardness_strength": 2.0}, "hardness_strength=2.0"),
        ({"hardness_mode": "all_negatives", "hardness_strength": -1.0}, "at least 0"),
    ],
)
def test_refused_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultipleNegativesRanking(**options)


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"margin_strategy": "none"}, {"margin": math.inf}]
)
def test_refused_gist_options(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        GIST(**options)
