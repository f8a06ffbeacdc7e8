"""Attention without padding on a GPU: against padded sdpa, and without waiting for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_packing import PACKED, embed, make, make_chunk
from torch import Tensor

from helpers.tiny import tiny_texts
from inbatch.compat import num_compiled_graphs
from inbatch.encoder import varlen
from inbatch.encoder.varlen import TextLengths, packed_attention, per_text_attention
from inbatch.errors import ConfigError
from inbatch.gradcache.rng import RngState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("model_type", PACKED)
def test_packed_equals_padded_in_bf16(model_type: str) -> None:
    encoder = make(model_type).float().to(CUDA)
    chunk = make_chunk(encoder).to(CUDA)
    exact, exact_gradients = embed(encoder, chunk, "never")
    with torch.autocast("cuda", torch.bfloat16):
        padded, padded_gradients = embed(encoder, chunk, "never")
        packed, packed_gradients = embed(encoder, chunk, "auto")
        assert encoder.num_computed_tokens(chunk) == chunk.num_tokens
    assert error(packed, exact) <= 2 * error(padded, exact) + 1e-3
    for gradients, limit in ((padded_gradients, 0.1), (packed_gradients, 0.1)):
        flat = torch.cat([g.flatten() for g in gradients])
        assert error(flat, torch.cat([g.flatten() for g in exact_gradients])) < limit


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("reach", [None, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_kernel_equals_the_loop(
    reach: int | None, public: bool, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not public:
        monkeypatch.setattr(varlen, "_public_varlen", lambda: None)
        monkeypatch.setattr(varlen, "_has_flash_attn", lambda: False)
    lengths = [1, 13, 64, 7, 129]
    ends = torch.tensor(lengths).cumsum(0)
    texts = TextLengths(
        torch.nn.functional.pad(ends, (1, 0)).to(torch.int32).to(CUDA), max(lengths)
    )
    torch.manual_seed(0)
    heads = [torch.randn(sum(lengths), 4, 32, device=CUDA) for _ in range(3)]
    options = {"dropout": 0.0, "scale": 32**-0.5, "reach": reach, "causal": causal}
    half = [x.bfloat16().requires_grad_() for x in heads]
    full = [x.bfloat16().float().requires_grad_() for x in heads]
    found = packed_attention(*half, texts, **options)
    wanted = per_text_attention(*full, texts, **options)
    assert error(found, wanted) < 1e-2
    weights = torch.randn_like(wanted)
    (found.float() * weights).sum().backward()
    (wanted * weights).sum().backward()
    for a, b in zip(half, full, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert error(a.grad, b.grad) < 2e-2


def test_dropout_of_the_kernel() -> None:
    lengths = torch.full((64,), 32)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32).to(CUDA)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2048, 4, 32, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    options = {"scale": 32**-0.5, "reach": None}
    plain = packed_attention(q, k, v, TextLengths(offsets, 32), dropout=0.0, **options).float()
    draws = []
    for seed in (1, 1, *range(2, 200)):
        torch.manual_seed(seed)
        draws.append(
            packed_attention(q, k, v, TextLengths(offsets, 32), dropout=0.3, **options).float()
        )
    assert torch.equal(draws[0], draws[1])
    assert error(draws[0], plain) > 0.1
    assert error(torch.stack(draws[1:]).mean(0), plain) < 0.1


@pytest.mark.parametrize("packing", ["never", "auto"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_no_chunk_waits_for_the_device(dropout: float, packing: Any) -> None:
    encoder = make("bert", attention="auto", dropout=dropout).float().to(CUDA).train()
    encoder.packing = packing
    chunk = make_chunk(encoder)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            embeddings = encoder(chunk.to(CUDA))
        embeddings.float().sum().backward()

    step()  # what is set up once may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_texts_do_not_see_each_other() -> None:
    encoder = make("modernbert").bfloat16().to(CUDA).eval()
    chunk = make_chunk(encoder)
    changed = chunk.input_ids.clone()
    changed[2, 1] = 7 if int(changed[2, 1]) != 7 else 8
    with torch.no_grad():
        before, after = encoder(chunk.to(CUDA)), encoder(chunk._replace(input_ids=changed).to(CUDA))
    differs = (before != after).any(1).nonzero().flatten().tolist()
    assert differs == [2]


def test_float32_is_padded_or_refused() -> None:
    encoder = make("bert", attention="auto").float().to(CUDA)
    chunk = make_chunk(encoder).to(CUDA)
    assert encoder.num_computed_tokens(chunk) == chunk.input_ids.numel()
    encoder.packing = "always"
    with pytest.raises(ConfigError, match="set precision=bf16, or"):
        encoder.check_packing(CUDA)
    with torch.autocast("cuda", torch.bfloat16):
        encoder.check_packing(CUDA)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_without_padding() -> None:
    """Equal to the plain one, two graphs for all shapes, the same dropout with and without gradient."""
    torch._dynamo.reset()
    plain, encoder = (make("bert", attention="auto").float().to(CUDA).train() for _ in range(2))
    encoder.compile_backbone()
    before = num_compiled_graphs()
    with torch.autocast("cuda", torch.bfloat16):
        for seed in range(4):
            texts = tiny_texts(10 + seed, seed=seed, max_words=24)
            chunk = make_chunk(encoder, texts=texts).to(CUDA)
            with torch.no_grad():
                assert error(encoder(chunk), plain(chunk)) < 2e-2
            encoder(chunk).float().square().sum().backward()
            assert encoder.num_computed_tokens(chunk) == chunk.num_tokens
    assert num_compiled_graphs() - before == 2
    torch._dynamo.reset()
    dropped = make("bert", attention="auto", dropout=0.3).float().to(CUDA).train()
    dropped.compile_backbone()
    with torch.autocast("cuda", torch.bfloat16):
        state = RngState.capture(CUDA)
        with torch.no_grad():
            first = dropped(chunk)
        state.restore()
        assert error(dropped(chunk), first) < 1e-2
        assert error(dropped(chunk), first) > 1e-2
