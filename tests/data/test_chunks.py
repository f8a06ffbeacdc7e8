"""Chunks against a plain loop, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inbatch.batch.chunks import halve_chunks, make_chunks
from inbatch.errors import ConfigError


def random_ids(num: int, *, seed: int = 0, longest: int = 20) -> tuple[list[list[int]], list[int]]:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 100, size=n).tolist() for n in rng.integers(1, longest + 1, size=num)]
    return ids, rng.integers(0, 3, size=num).tolist()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("rows", "tokens"), [(None, None), (7, None), (None, 64), (5, 64)])
def test_equals_a_plain_loop(side: str, rows: int | None, tokens: int | None) -> None:
    ids, prompts = random_ids(60)
    chunks = make_chunks(
        ids,
        prompts,
        chunk_rows=rows,
        chunk_tokens=tokens,
        pad_id=-1,
        padding_side=side,  # type: ignore[arg-type]
    )
    index = torch.cat([chunk.index for chunk in chunks]).tolist()
    assert sorted(index) == list(range(60))
    assert index == sorted(range(60), key=lambda i: -len(ids[i]))  # sorted() is stable
    for chunk in chunks:
        width = chunk.input_ids.shape[1]
        assert width == max(len(ids[i]) for i in chunk.index)
        assert rows is None or chunk.num_texts <= rows
        assert tokens is None or chunk.input_ids.numel() <= tokens
        for row, i in enumerate(chunk.index.tolist()):
            pad = [-1] * (width - len(ids[i]))
            expected = ids[i] + pad if side == "right" else pad + ids[i]
            assert chunk.input_ids[row].tolist() == expected
            assert chunk.attention_mask[row].tolist() == [int(token != -1) for token in expected]
            assert chunk.prompt_lengths[row] == prompts[i]
        for tensor in (chunk.input_ids, chunk.attention_mask, chunk.prompt_lengths, chunk.index):
            assert tensor.dtype == torch.int64


def test_token_budget_is_used_up() -> None:
    chunks = make_chunks(
        [[1] * 4] * 10, [0] * 10, chunk_rows=None, chunk_tokens=16, pad_id=0, padding_side="right"
    )
    assert [chunk.num_texts for chunk in chunks] == [4, 4, 2]


def test_no_limit_is_one_chunk_and_no_text_is_none() -> None:
    options = {"chunk_rows": None, "chunk_tokens": None, "pad_id": 0}
    assert len(make_chunks(*random_ids(30), **options)) == 1  # type: ignore[arg-type]
    assert make_chunks([], [], **options) == ()  # type: ignore[arg-type]


def test_a_text_above_the_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"chunk_tokens=8 .* at least 9"):
        make_chunks([[1] * 9], [0], chunk_rows=None, chunk_tokens=8, pad_id=0)


class Waits(TorchDispatchMode):
    """Notes the operations for whose result the host would wait on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "_local_scalar_dense" in func.name() or "nonzero" in func.name():
            self.found.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("side", ["right", "left"])
def test_halves_hold_the_same_texts_and_tell_lengths_at_once(side: str) -> None:
    ids, prompts = random_ids(23)
    chunks = make_chunks(
        ids,
        prompts,
        chunk_rows=5,
        chunk_tokens=None,
        pad_id=0,
        padding_side=side,  # type: ignore[arg-type]
    )
    with Waits() as waits:
        halves = halve_chunks(chunks)
    assert waits.found == []
    assert [half.num_texts for half in halves] == [3, 2] * 4 + [2, 1]
    for half in halves:
        texts = [
            row[mask.bool()].tolist() for row, mask in zip(half.input_ids, half.attention_mask)
        ]
        wanted = [ids[i] for i in half.index.tolist()]
        assert texts == wanted
        assert half.prompt_lengths.tolist() == [prompts[i] for i in half.index.tolist()]
        assert half.input_ids.shape[1] == max(map(len, wanted))
        assert half.num_tokens == sum(map(len, wanted))
    assert halve_chunks([]) == ()
