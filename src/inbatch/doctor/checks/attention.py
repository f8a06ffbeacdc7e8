"""Attention, padded and without padding, against softmax(q k^T) v in float64.

Shape letters: n texts, T tokens of the longest, P tokens of all, H heads, d dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from inbatch.doctor.checks import plain
from inbatch.doctor.checks.accuracy import Accuracy
from inbatch.doctor.checks.tiny import chunk_of, texts, tiny_encoder
from inbatch.doctor.result import Machine, Result, attempt
from inbatch.encoder.varlen import TextLengths, kernel_runs_on, packed_attention

LENGTHS = (1, 13, 64, 7, 40)
HEADS, HEAD_DIM = 4, 32
WINDOW = 3  # tokens to either side
#: Largest errors: some times the rounding of the softmax's weights. TF32, where nobody allows it, is above.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
ENCODER_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_KINDS: dict[str, dict[str, Any]] = {
    "packed": {},
    "packed, window": {"reach": WINDOW},
    "packed, causal": {"causal": True},
}
_NAMES = {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def attention(machine: Machine) -> Iterator[Result]:
    """torch's padded attention, and the one for packed texts: whole, with a window, and of decoders."""
    on_gpu = machine.device.type == "cuda"
    for dtype in (torch.float32, torch.bfloat16) if on_gpu else (torch.float32,):
        name = f"sdpa, {_NAMES[dtype]}"
        yield from attempt(name, partial(_compare, name, padded_attention, machine.device, dtype))
    if on_gpu and not kernel_runs_on(machine.device):
        yield Result("packed", "not run: this GPU has no kernel for it", None)
        return
    for dtype in (torch.bfloat16, torch.float16) if on_gpu else (torch.float32,):
        for kind, sees in _KINDS.items():
            name = f"{kind}, {_NAMES[dtype]}"
            packed = partial(without_padding, **sees)
            compare = partial(_compare, name, packed, machine.device, dtype, **sees)
            yield from attempt(name, compare)


def packed_encoder(machine: Machine) -> Iterator[Result]:
    """An encoder without padding against the same with padding in float64."""
    dtype = torch.bfloat16 if machine.device.type == "cuda" else torch.float32
    if machine.device.type == "cuda" and not kernel_runs_on(machine.device):
        yield Result("packed encoder", "not run: this GPU has no kernel for it", None)
        return
    exact = tiny_encoder(attention="eager").double().eval()
    encoder = tiny_encoder(attention="varlen").to(machine.device).eval()
    chunk = chunk_of(exact, texts(9))
    with torch.autocast(machine.device.type, dtype, enabled=dtype != torch.float32):
        found = encoder(chunk.to(machine.device))
    pairs = [(found, exact(chunk))]
    found.float().sum().backward()
    pairs[0][1].sum().backward()
    weights = dict(exact.named_parameters())
    grads = [(p.grad, weights[name].grad) for name, p in encoder.named_parameters()]
    flat = [torch.cat([g.detach().flatten().cpu().double() for g in each]) for each in zip(*grads)]
    name = f"packed encoder, {_NAMES[dtype]}"
    yield Accuracy(name, ENCODER_LIMITS[dtype]).result([*pairs, (flat[0], flat[1])])


def padded_attention(query_PHd: Tensor, key_PHd: Tensor, value_PHd: Tensor) -> Tensor:
    """torch's attention over padded texts with a mask, [P, H, d]."""
    longest = max(LENGTHS)
    real_nT = torch.tensor([[t < length for t in range(longest)] for length in LENGTHS])
    real_nT = real_nT.to(query_PHd.device)

    def pad(packed_PHd: Tensor) -> Tensor:
        rows = packed_PHd.new_zeros(len(LENGTHS), longest, HEADS, HEAD_DIM)
        rows = rows.masked_scatter(real_nT[:, :, None, None], packed_PHd)
        return rows.transpose(1, 2)

    q, k, v = (pad(each) for each in (query_PHd, key_PHd, value_PHd))
    attended = scaled_dot_product_attention(q, k, v, real_nT[:, None, None, :])
    return attended.transpose(1, 2)[real_nT]


def without_padding(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    *,
    reach: int | None = None,
    causal: bool = False,
) -> Tensor:
    """The package's attention over packed texts, [P, H, d]."""
    offsets = torch.tensor(offsets_of(LENGTHS), dtype=torch.int32, device=query_PHd.device)
    return packed_attention(
        *(query_PHd, key_PHd, value_PHd, TextLengths(offsets, max(LENGTHS))),
        dropout=0.0,
        scale=HEAD_DIM**-0.5,
        reach=reach,
        causal=causal,
    )


def offsets_of(lengths: Sequence[int]) -> list[int]:
    """Where each text begins, and the end of the last."""
    return [sum(lengths[:number]) for number in range(len(lengths) + 1)]


def _compare(
    name: str,
    attend: Attend,
    device: torch.device,
    dtype: torch.dtype,
    **sees: Any,
) -> Iterator[Result]:
    """Output and gradients of an attention on a device."""
    draws = torch.Generator().manual_seed(0)
    shape = (4, sum(LENGTHS), HEADS, HEAD_DIM)
    *heads, weight = torch.randn(shape, generator=draws).to(dtype).double()
    exact = [each.clone().requires_grad_() for each in heads]
    mine = [each.to(device, dtype).requires_grad_() for each in heads]
    q, k, v = exact
    wanted = plain.attention(q, k, v, offsets_of(LENGTHS), **sees)
    found = attend(*mine)
    (wanted * weight).sum().backward()
    (found.double() * weight.to(device)).sum().backward()
    grads = [(a.grad, b.grad) for a, b in zip(mine, exact)]
    pairs = [(found, wanted), *((a, b) for a, b in grads if a is not None and b is not None)]
    yield Accuracy(name, LIMITS[dtype]).result(pairs)
