"""Attention over concatenated texts, without padding.

Shape letters: n texts, P tokens of all of them, H heads, d dimensions of a head.

`ATTENTION` is registered as one of transformers' attention implementations. A model that has it
computes padded batches as sdpa does. Called with ``cu_seq_lens_q`` it takes its input as packed: a
token attends only to the tokens of its own text, whatever the positions are. On a GPU that is one
kernel (flash-attn's where it is installed, torch's otherwise); elsewhere a loop over the texts
computes the same.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from inbatch import compat
from inbatch.device.capability import AMPERE
from inbatch.encoder.masks import sdpa_mask

ATTENTION = "inbatch_varlen"
KERNEL_DTYPES = (torch.float16, torch.bfloat16)


class TextLengths(NamedTuple):
    """Offsets of packed texts."""

    offsets: Tensor  # [n + 1] int32: text i is tokens offsets[i] to offsets[i + 1]
    max_length: int  # no text has more tokens


def register() -> None:
    """Make `ATTENTION` known to transformers."""
    AttentionInterface.register(ATTENTION, attention_forward)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: [1, H, P, d] each -> [1, P, H, d], or sdpa's if padded.

    A `sliding_window` of w lets tokens see w - 1 tokens to either side, as flash attention counts. In a
    decoder, whose module says that it is causal, they see none behind them. Keys and values may have fewer
    heads than queries, each for several.
    """
    if cu_seq_lens_q is None:
        sdpa = AttentionInterface()["sdpa"]
        options = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **others}
        output: tuple[Tensor, None] = sdpa(module, query, key, value, attention_mask, **options)
        return output
    dtype = compute_dtype(query.device.type, query.dtype)
    query_PHd, key_PHd, value_PHd = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))
    attended = packed_attention(
        query_PHd,
        key_PHd,
        value_PHd,
        TextLengths(cu_seq_lens_q, max_length_q),
        dropout=dropout,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        reach=None if sliding_window is None else sliding_window - 1,
        causal=bool(getattr(module, "is_causal", False) if is_causal is None else is_causal),
    )
    return attended[None], None


def compute_dtype(device_type: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype that attention computes in: autocast's where that is on, else the one given."""
    autocast = torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if autocast else dtype


@lru_cache
def kernel_runs_on(device: torch.device) -> bool:
    """Tell whether the device has a kernel for packed attention."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < AMPERE:
        return False
    return _has_flash_attn() or torch.backends.cuda.is_flash_attention_available()


def packed_attention(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    texts: TextLengths,
    *,
    dropout: float,
    scale: float,
    reach: int | None,
    causal: bool = False,
) -> Tensor:
    """softmax(q k^T scale) v within each text, [P, H, d].

    Args:
        query_PHd: heads of all texts; keys and values may have fewer heads, a divisor of H.
        key_PHd: see `query_PHd`.
        value_PHd: see `query_PHd`.
        texts: where each text is.
        dropout: share of attention weights that are set to zero.
        scale: factor of the products.
        reach: neighbours to either side that a token sees, None for all.
        causal: leave out those behind it.
    """
    shared = query_PHd.shape[1] // key_PHd.shape[1]
    if shared > 1:
        key_PHd, value_PHd = (x.repeat_interleave(shared, dim=1) for x in (key_PHd, value_PHd))
    attend = (
        per_text_attention
        if query_PHd.device.type != "cuda"
        else _flash_attn
        if _has_flash_attn()
        else torch_attention
    )
    return attend(
        *(query_PHd, key_PHd, value_PHd, texts),
        dropout=dropout,
        scale=scale,
        reach=reach,
        causal=causal,
    )


def per_text_attention(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    texts: TextLengths,
    *,
    dropout: float,
    scale: float,
    reach: int | None,
    causal: bool = False,
) -> Tensor:
    """`packed_attention` text by text, in any dtype; waits for the device to read the offsets."""
    parts = []
    for start, stop in pairwise(texts.offsets.tolist()):
        q, k, v = (x[None, start:stop].transpose(1, 2) for x in (query_PHd, key_PHd, value_PHd))
        mask = None
        if reach is not None or causal:
            place = torch.arange(stop - start, device=q.device)
            behind = place[None, :] - place[:, None]  # of a key: so many tokens behind the query's
            mask = behind <= (0 if causal else behind.numel())
            if reach is not None:
                mask = mask & (behind.abs() <= reach)
        part = scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale)
        parts.append(part[0].transpose(0, 1))
    return torch.cat(parts)


def torch_attention(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    texts: TextLengths,
    *,
    dropout: float,
    scale: float,
    reach: int | None,
    causal: bool = False,
) -> Tensor:
    """`packed_attention` by torch's own kernel.

    Its public form has no dropout, and in early releases no scale and no window; the operator it calls does.
    """
    offsets, length = texts
    heads = (query_PHd, key_PHd, value_PHd)
    window = _window(reach, causal)
    public = _public_varlen()
    if dropout == 0.0 and public is not None:
        attended: Tensor = public(
            *heads, offsets, offsets, length, length, scale=scale, window_size=window
        )
        return attended
    return compat.flash_attention(
        *heads, offsets=offsets, longest=length, dropout=dropout, scale=scale, window=window
    )


def _flash_attn(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    texts: TextLengths,
    *,
    dropout: float,
    scale: float,
    reach: int | None,
    causal: bool = False,
) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    offsets, length = texts
    attended: Tensor = flash_attn_varlen_func(
        *(query_PHd, key_PHd, value_PHd, offsets, offsets, length, length),
        dropout_p=dropout,
        softmax_scale=scale,
        window_size=_window(reach, causal),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return attended


def _window(reach: int | None, causal: bool) -> tuple[int, int]:
    """Tokens in front and behind that a token sees, as the kernels count: -1 for all."""
    side = -1 if reach is None else reach
    return side, 0 if causal else side


@lru_cache
def _has_flash_attn() -> bool:
    return find_spec("flash_attn") is not None


@lru_cache
def _public_varlen() -> Any:
    """Return torch.nn.attention.varlen.varlen_attn, if it takes a scale and a window."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size"} <= known.keys() else None
