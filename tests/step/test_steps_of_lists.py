"""Steps of rows with lists beside the keystone: copies of a text, labels, sizes that disagree, rings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.distributed import gloo, run
from helpers.keystone import quiet
from helpers.ragged_batches import collate_lists, make_rows
from inbatch.batch.transfer import pack
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.losses import MultipleNegativesRanking
from inbatch.step.contrastive_step import ContrastiveStep
from inbatch.step.copies import spread


def test_gradients_of_copies_add_up() -> None:
    values = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    copies = np.array([4, 0, 0, 2, 1, 3, 0, 2])
    weights = torch.randn(8, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad((spread(values, copies) * weights).sum(), values)
    (wanted,) = torch.autograd.grad((values[torch.from_numpy(copies)] * weights).sum(), values)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(spread(values, copies), values[torch.from_numpy(copies)])
    assert spread(values, None) is values


def test_a_rank_without_texts_has_copies_of_nothing() -> None:
    values = torch.empty(0, 3, requires_grad=True)
    spread(values, np.empty(0, dtype=np.int64)).sum().backward()
    assert values.grad is not None
    assert values.grad.shape == (0, 3)


def test_equal_texts_are_embedded_once(tiny_bert: Path) -> None:
    batch = collate_lists(make_rows(10), build_encoder(str(tiny_bert)).tokenizer)
    assert batch.documents is not None
    assert sum(chunk.num_texts for chunk in batch.chunks) < 10 + batch.documents.num


def test_a_packed_batch_opens_as_it_was(tiny_bert: Path) -> None:
    batch = collate_lists(make_rows(6), build_encoder(str(tiny_bert)).tokenizer, chunk_rows=4)
    again = pack(batch).open("cpu")
    assert batch.documents is not None
    assert again.documents is not None
    np.testing.assert_array_equal(again.documents.counts, batch.documents.counts)
    np.testing.assert_array_equal(again.copies, batch.copies)  # type: ignore[arg-type]
    for found, wanted in zip(again.chunks, batch.chunks, strict=True):
        torch.testing.assert_close(found.input_ids, wanted.input_ids)


def test_labels_do_not_disturb(tiny_bert: Path) -> None:
    encoder = build_encoder(str(tiny_bert))
    step = ContrastiveStep(encoder, MultipleNegativesRanking(mask_duplicates=True))
    batch = collate_lists(make_rows(6), encoder.tokenizer)
    plain = step(batch)
    labelled = step(batch._replace(labels=torch.ones(6)))
    assert float(labelled.loss) == float(plain.loss)
    assert set(plain.metrics) - set(labelled.metrics) == {"alignment", "uniformity"}


def _refusals(rank: int, world_size: int, path: Path) -> list[str]:
    quiet()
    gloo()
    encoder, found = build_encoder(str(path)), []
    place = {"rank": rank, "world_size": world_size}
    batch = collate_lists(make_rows(6), encoder.tokenizer, **place)
    assert batch.documents is not None
    with pytest.raises(ConfigError) as ring:
        ContrastiveStep(encoder, MultipleNegativesRanking(), gather="ring")(batch)
    found.append(str(ring.value))
    wrong = batch._replace(documents=batch.documents._replace(of_ranks=(1, 1)))
    with pytest.raises(ValueError, match="documents where the plan gives it 1") as counts:
        ContrastiveStep(encoder, MultipleNegativesRanking())(wrong)
    return [*found, str(counts.value)]


def test_what_ranks_refuse_before_they_wait_for_each_other(tiny_bert: Path) -> None:
    for ring, counts in run(_refusals, 2, tiny_bert):
        assert ring == "gather='ring' does not know rows with lists: set gather=global"
        assert counts.startswith("this rank holds")


def _alone(rank: int, world_size: int, path: Path) -> float:
    quiet()
    gloo()
    encoder = build_encoder(str(path)).double()
    rows = make_rows(6)
    step = ContrastiveStep(encoder, MultipleNegativesRanking(), gather="local")
    place = {"rank": rank, "world_size": world_size}
    return float(step(collate_lists(rows, encoder.tokenizer, counted=False, **place)).loss)


def test_local_gather_contrasts_the_rows_of_a_rank(tiny_bert: Path) -> None:
    encoder = build_encoder(str(tiny_bert)).double()
    rows = make_rows(6)
    parts = (rows[:3], rows[3:])
    step = ContrastiveStep(encoder, MultipleNegativesRanking())
    wanted = [float(step(collate_lists(part, encoder.tokenizer)).loss) for part in parts]
    assert run(_alone, 2, tiny_bert) == pytest.approx(wanted, rel=1e-12)
