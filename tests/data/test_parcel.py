"""A parcel opens to the batch that was wrapped, and has few tensors."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor
from torch.distributed.utils import _recursive_to
from torch.utils.data import DataLoader

from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.batch.batch import Batch, Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.batch.transfer import PackedBatch, pack
from inbatch.data.collate import BatchDataset, Collator
from inbatch.data.plan.plan import PlannedSlice
from inbatch.data.sources.load import Source
from inbatch.encoder.tokenize import TextTokenizer

SIDES: tuple[Literal["right", "left"], ...] = ("right", "left")


def make_batch(chunks: tuple[Chunk, ...], guide_chunks: tuple[Chunk, ...] = ()) -> Batch:
    return Batch(
        chunks=chunks,
        num_rows=3,
        num_columns=1,
        num_global_rows=6,
        labels=torch.tensor([0.5, 1.0, 0.0]),
        text_ids=np.array([[2**62, 2**63, 1]], dtype=np.uint64),
        source="s",
        step=4,
        num_tokens=9,
        num_padded_tokens=12,
        guide_chunks=guide_chunks,
        scores=torch.tensor([0.25, torch.nan, 1e-30]),
    )


def chunks_of(*lengths: int, side: Literal["right", "left"], **limits: Any) -> tuple[Chunk, ...]:
    ids = [list(range(30000, 30000 + length)) for length in lengths]
    limits = {"chunk_rows": 2, "chunk_tokens": None, **limits}
    return make_chunks(ids, [min(1, n) for n in lengths], pad_id=0, padding_side=side, **limits)


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            assert_same(one, other)
    else:
        assert a == b


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("lengths", [(3, 5, 1), (4, 4, 4), (5, 0, 2), (0, 0, 0), (1,), ()])
def test_it_opens_to_the_same_batch(lengths: tuple[int, ...], side: Any) -> None:
    batch = make_batch(chunks_of(*lengths, side=side))
    assert_same(batch, pack(batch).open("cpu"))


def test_two_tokenizers_may_pad_on_two_sides() -> None:
    batch = make_batch(chunks_of(3, 5, 1, side="left"), chunks_of(2, 7, 7, side="right"))
    assert_same(batch, pack(batch).open("cpu"))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_labels_are_not_rounded(precision: Any) -> None:
    batch = make_batch(chunks_of(3, 5, side="right"))._replace(labels=torch.tensor([0.7501, 0.75]))
    parcel = HalfPrecision(precision).convert_input(pack(batch))
    assert_same(batch.labels, parcel.open("cpu").labels)


def test_the_hashes_stay_where_they_are() -> None:
    parcel = pack(make_batch(chunks_of(3, 5, side="right"), chunks_of(3, side="right")))
    moved = parcel.open("meta")
    assert moved.text_ids is parcel.rest.text_ids
    assert moved.labels is not None
    assert moved.labels.is_meta
    assert all(c.input_ids.is_meta and c.index.is_meta for c in moved.chunks + moved.guide_chunks)
    (forwarded,) = _recursive_to(moved, torch.device("meta"), False)  # what DDP does to its inputs
    assert forwarded.text_ids is moved.text_ids


def test_a_worker_hands_over_two_tensors() -> None:
    texts = {name: tiny_texts(400, seed=seed) for seed, name in enumerate(("query", "positive"))}
    source = Source.from_columns("tiny", {**texts, "label": [0.5] * 400})
    collator = Collator(tokenizer=TextTokenizer(hf=tiny_tokenizer(), max_length=12), chunk_rows=1)
    plan = [PlannedSlice(step, 0, np.arange(400), 400) for step in range(2)]
    loader: DataLoader[PackedBatch] = DataLoader(
        BatchDataset([source], collator),
        sampler=plan,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=pack,
        num_workers=1,
    )
    parcels = list(loader)
    assert [parcel.num_chunks for parcel in parcels] == [800, 800]
    # One more file handle a tensor would be over the usual limit of 1,024.
    tensors = [parcels[0].numbers, *(t for t in parcels[0].rest if isinstance(t, Tensor))]
    assert len(tensors) == 2
    expected = collator(source, np.arange(400), step=1, num_global_rows=400)
    assert_same(expected, parcels[1].open("cpu"))
