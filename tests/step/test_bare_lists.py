"""`ContrastiveStep` on lists, without a run around it: known positives are masked by default."""

from __future__ import annotations

from pathlib import Path

import pytest

import inbatch

ROWS = {
    "query": ["red coat", "blue bag", "green hat"],
    "positive": [["warm red coat", "coat"], ["bag in blue"], ["hat"]],
    "negative": [["blue coat"], [], ["coat", "cap"]],  # "coat" is a positive of the first row
}


def test_known_positives_are_masked_unless_the_user_says_otherwise(tiny_bert: Path) -> None:
    found = {}
    for masked in (None, True, False):
        encoder = inbatch.load_encoder(tiny_bert).train()
        loss = inbatch.losses.MultipleNegativesRanking(mask_duplicates=masked)
        step = inbatch.ContrastiveStep(encoder, loss)
        found[masked] = float(step(step.collate(ROWS)).loss)
    assert found[None] == found[True]
    assert found[False] != pytest.approx(found[True], rel=1e-4)
