"""The compiled backbone gives the same embeddings from a bounded number of graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_packing import make, make_chunk

from helpers.tiny import tiny_texts
from inbatch.batch.chunks import make_chunks
from inbatch.compat import num_compiled_graphs
from inbatch.encoder.compiled import widen
from inbatch.errors import ConfigError
from inbatch.gradcache.rng import RngState


@pytest.mark.slow
def test_one_graph_for_each_kind_of_forward() -> None:
    """The backend is the eager one, which compiles no code."""
    torch._dynamo.reset()
    plain, encoder = (make("bert", attention="auto", layers=1).train() for _ in range(2))
    encoder.compile_backbone(backend="aot_eager")
    before, shapes = num_compiled_graphs(), set()
    for seed in range(4):
        ids, _ = encoder.tokenizer([*tiny_texts(20, seed=seed, max_words=40), "red"])
        for chunk in make_chunks(
            ids, [0] * len(ids), chunk_rows=None, chunk_tokens=200, pad_id=encoder.tokenizer.pad_id
        ):
            shapes.add(chunk.input_ids.shape)
            with torch.no_grad():
                encoder(chunk)
            found, wanted = encoder(chunk), plain(chunk)
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
            for embeddings in (found, wanted):
                embeddings.square().sum().backward()
    assert len(shapes) >= 10
    assert num_compiled_graphs() - before == 2
    for (name, p), q in zip(encoder.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_dropout_is_replayed() -> None:
    torch._dynamo.reset()
    encoder = make("bert", attention="auto", layers=1, dropout=0.3).train()
    encoder.compile_backbone(backend="aot_eager")
    chunk = make_chunk(encoder)
    state = RngState.capture(torch.device("cpu"))
    with torch.no_grad():
        first = encoder(chunk)
    state.restore()
    assert torch.equal(encoder(chunk), first)
    assert not torch.equal(encoder(chunk), first)


@pytest.mark.parametrize("side", ["right", "left"])
def test_widened_shapes(side: Any) -> None:
    (chunk,) = make_chunks(
        [[2, 5, 6, 7, 3], [2, 5, 3]],
        [0, 0],
        chunk_rows=None,
        chunk_tokens=None,
        pad_id=1,
        padding_side=side,
    )
    options = {"pad_id": 9, "padding_side": side}
    for most, wide in ((64, 8), (7, 7), (5, 5)):
        ids, mask = widen(chunk, max_width=most, **options)
        assert ids.shape == mask.shape == (8, wide)
        place = slice(0, 5) if side == "right" else slice(wide - 5, wide)
        assert torch.equal(ids[:2, place], chunk.input_ids)
        assert torch.equal(mask[:2, place], chunk.attention_mask)
        assert mask.sum(1).tolist() == [5, *[3] * 7], "every row attends to something"
        assert (ids == 9).sum() == 8 * (wide - 5), "only what is new is filled"


def test_what_is_computed_is_counted() -> None:
    encoder = make("bert", attention="auto")
    chunk = make_chunk(encoder)
    rows, width = chunk.input_ids.shape
    assert (rows % 8, width % 8) != (0, 0)
    encoder.compile_backbone(backend="aot_eager")
    assert encoder.num_computed_tokens(chunk) == -(-rows // 8) * 8 * min(-(-width // 8) * 8, 66)


def test_the_loop_over_texts_is_not_compiled() -> None:
    with pytest.raises(ConfigError, match=r"set encoder\.attention=auto"):
        make("bert").compile_backbone()
