"""Flash attention over concatenated texts on the emulated devices, as torch's kernel computes it.

Refuses what the kernel refuses, and wrong lengths besides, which the kernel would not notice.

Shape letters: P tokens of all texts, T of one, H heads, d dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

_HALVES = (torch.float16, torch.bfloat16)


class _Text(NamedTuple):
    """What both passes compute of one text, in float32."""

    tokens: slice
    query_HTd: Tensor
    key_HTd: Tensor
    value_HTd: Tensor
    weights_HTT: Tensor  # softmax
    kept_HTT: Tensor  # 0 where dropped, else 1 / (1 - dropout)


def install() -> torch.library.Library:
    """Give the devices the operators; they go with the object that is returned."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", _forward, "CUDA")
    library.impl("_flash_attention_backward", _backward, "CUDA")
    return library


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    key_offsets: Tensor,
    longest: int,
    longest_key: int,
    dropout: float,
    causal: bool,
    return_debug_mask: bool,
    *,
    scale: float | None = None,
    window_size_left: int | None = None,
    window_size_right: int | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    _check(query, key, value, offsets, longest)
    devices = torch.ops.emulated_cuda
    devices.count_kernel("aten::_flash_attention_forward")
    output = torch.empty_like(query)
    lse = query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)
    state = torch.empty(2, dtype=torch.uint64, device=query.device)
    if dropout:
        devices.host_view(state.view(torch.int64)).random_(generator=_generator(query.device))
    window = (window_size_left, window_size_right)
    for text in _texts(query, key, value, offsets, state, dropout, causal, scale, window):
        attended = (text.weights_HTT * text.kept_HTT) @ text.value_HTd
        devices.host_view(output)[text.tokens] = attended.transpose(0, 1).to(query.dtype)
    return output, lse, state, state.new_empty(()), query.new_empty(0)


def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    offsets: Tensor,
    key_offsets: Tensor,
    longest: int,
    longest_key: int,
    dropout: float,
    causal: bool,
    state: Tensor,
    unused: Tensor,
    *,
    scale: float | None = None,
    window_size_left: int | None = None,
    window_size_right: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    devices = torch.ops.emulated_cuda
    devices.count_kernel("aten::_flash_attention_backward")
    found = tuple(torch.empty_like(part) for part in (query, key, value))
    window = (window_size_left, window_size_right)
    size = query.shape[-1] ** -0.5 if scale is None else scale
    for text in _texts(query, key, value, offsets, state, dropout, causal, scale, window):
        of_output = _heads(gradient, text.tokens)
        of_value = (text.weights_HTT * text.kept_HTT).transpose(1, 2) @ of_output
        of_weights = (of_output @ text.value_HTd.transpose(1, 2)) * text.kept_HTT
        mean = (of_weights * text.weights_HTT).sum(-1, keepdim=True)
        of_scores = text.weights_HTT * (of_weights - mean) * size
        parts = (of_scores @ text.key_HTd, of_scores.transpose(1, 2) @ text.query_HTd, of_value)
        for whole, part in zip(found, parts, strict=True):
            devices.host_view(whole)[text.tokens] = part.transpose(0, 1).to(query.dtype)
    return found


def _texts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    state: Tensor,
    dropout: float,
    causal: bool,
    scale: float | None,
    window: tuple[int | None, int | None],
) -> Iterator[_Text]:
    host_view = torch.ops.emulated_cuda.host_view
    generator = torch.Generator()
    if dropout:
        generator.manual_seed(int(host_view(state.view(torch.int64))[0]))
    size = query.shape[-1] ** -0.5 if scale is None else scale
    for start, stop in pairwise(host_view(offsets).tolist()):
        tokens = slice(start, stop)
        q, k, v = (_heads(part, tokens) for part in (query, key, value))
        scores = q @ k.transpose(1, 2) * size
        scores.masked_fill_(_hidden(stop - start, causal, window), -torch.inf)
        kept = torch.ones_like(scores)
        if dropout:
            kept.bernoulli_(1 - dropout, generator=generator).div_(1 - dropout)
        yield _Text(tokens, q, k, v, scores.softmax(-1), kept)


def _heads(part_PHd: Tensor, tokens: slice) -> Tensor:
    host: Tensor = torch.ops.emulated_cuda.host_view(part_PHd)
    return host[tokens].transpose(0, 1).float()


def _hidden(num_tokens: int, causal: bool, window: tuple[int | None, int | None]) -> Tensor:
    """True where a token does not see another, [T, T]; -1 and None stand for no limit."""
    left, right = (num_tokens if side in (None, -1) else side for side in window)
    place = torch.arange(num_tokens)
    ahead_TT = place[None, :] - place[:, None]
    return (ahead_TT > (0 if causal else right)) | (ahead_TT < -left)


def _generator(device: torch.device) -> torch.Generator:
    generators: Any = torch.cuda.default_generators
    found: torch.Generator = generators[device.index]
    return found


def _check(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int) -> None:
    for part in (query, key, value):
        if part.dtype not in _HALVES:
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type (emulated)")
        if part.shape != query.shape or part.shape[-1] % 8 or part.shape[-1] > 256:
            raise RuntimeError(f"flash attention does not take heads of {tuple(part.shape)}")
        if part.stride(-1) != 1:
            raise RuntimeError("Input tensor must have contiguous last dimension (emulated)")
    if offsets.dtype != torch.int32:
        raise RuntimeError("cu_seqlens_q must have dtype int32 (emulated)")
    ends = torch.ops.emulated_cuda.host_view(offsets).tolist()
    lengths = [stop - start for start, stop in pairwise(ends)]
    if ends[0] != 0 or ends[-1] != len(query) or max(lengths) > longest or min(lengths) < 0:
        raise RuntimeError(f"texts of {lengths} tokens are not those of {len(query)}, {longest}")
