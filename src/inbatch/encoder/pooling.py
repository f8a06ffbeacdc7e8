"""Token embeddings -> one embedding per text. Shape letters: n texts, T tokens, D dimension.

Pure functions of (token embeddings, mask, padding in front), one per mode; `Pooling` concatenates
any of them, and functions of other packages by their dotted names. The mask selects the tokens that are
pooled: real tokens, less the prompt's where ``include_prompt`` is off. Every mode here equals that of
sentence-transformers' `Pooling`, for padding on either side: sums run in fp32 where the embeddings are
fp16 or bf16, and the result has the embeddings' dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

import torch
from torch import Tensor

from inbatch.errors import ConfigError, did_you_mean

_EPSILON = 1e-9  # a text without pooled tokens pools to zero, not to nan


def padding_lengths(mask_nT: Tensor) -> Tensor:
    """Padding tokens in front of each text, [n]; zero where padding is on the right."""
    return mask_nT.to(torch.int32).argmax(dim=1)


def exclude_prompt(mask_nT: Tensor, prompt_lengths_n: Tensor) -> Tensor:
    """Return a mask without the leading `prompt_lengths_n` real tokens of each text."""
    positions_T = torch.arange(mask_nT.shape[1], device=mask_nT.device)
    first_n = padding_lengths(mask_nT) + prompt_lengths_n
    return mask_nT * (positions_T >= first_n[:, None]).to(mask_nT.dtype)


def cls(tokens_nTD: Tensor, mask_nT: Tensor, padding_n: Tensor) -> Tensor:
    """Embedding of the first pooled token."""
    return _token(tokens_nTD, padding_lengths(mask_nT))


def max_tokens(tokens_nTD: Tensor, mask_nT: Tensor, padding_n: Tensor) -> Tensor:
    """Largest value of each dimension."""
    return tokens_nTD.masked_fill(mask_nT[:, :, None] == 0, float("-inf")).max(dim=1).values


def mean(tokens_nTD: Tensor, mask_nT: Tensor, padding_n: Tensor) -> Tensor:
    """Sum over tokens / number of tokens."""
    total_nD, count_n1 = _masked_sum(tokens_nTD, mask_nT)
    return (total_nD / count_n1).to(tokens_nTD.dtype)


def mean_sqrt_len(tokens_nTD: Tensor, mask_nT: Tensor, padding_n: Tensor) -> Tensor:
    """Sum over tokens / square root of the number of tokens."""
    total_nD, count_n1 = _masked_sum(tokens_nTD, mask_nT)
    return (total_nD / count_n1.sqrt()).to(tokens_nTD.dtype)


def weighted_mean(tokens_nTD: Tensor, mask_nT: Tensor, padding_n: Tensor) -> Tensor:
    """Mean with weight 1, 2, 3 ... by position in the text (SGPT, arXiv 2202.08904).

    Positions count from the first real token, so leaving out a prompt keeps the other weights.
    """
    dtype = _sum_dtype(tokens_nTD)
    positions_T = torch.arange(1, tokens_nTD.shape[1] + 1, device=tokens_nTD.device, dtype=dtype)
    weights_nT = mask_nT.to(dtype) * (positions_T - padding_n[:, None])
    total_nD = (tokens_nTD * weights_nT[:, :, None]).sum(dim=1)
    weight_n1 = weights_nT.sum(dim=1, keepdim=True).clamp(min=_EPSILON)
    return (total_nD / weight_n1).to(tokens_nTD.dtype)


def last_token(tokens_nTD: Tensor, mask_nT: Tensor, padding_n: Tensor) -> Tensor:
    """Embedding of the last pooled token; zero where none is pooled."""
    last_n = mask_nT.shape[1] - 1 - padding_lengths(mask_nT.flip(1))
    return _token(tokens_nTD * mask_nT[:, :, None].to(tokens_nTD.dtype), last_n)


PoolingFunction = Callable[[Tensor, Tensor, Tensor], Tensor]

POOLING_MODES: dict[str, PoolingFunction] = {
    "cls": cls,
    "max": max_tokens,
    "mean": mean,
    "mean_sqrt_len": mean_sqrt_len,
    "weighted_mean": weighted_mean,
    "last_token": last_token,
}


@lru_cache
def pooling_function(mode: str) -> PoolingFunction:
    """Find the function of a mode: one of `POOLING_MODES`, or that of a dotted name.

    Raises:
        ConfigError: there is none.
    """
    if mode in POOLING_MODES:
        return POOLING_MODES[mode]
    module, _, name = mode.rpartition(".")
    try:
        found = getattr(import_module(module), name) if module else None
    except (ImportError, AttributeError):
        found = None
    if not callable(found):
        known = ", ".join(POOLING_MODES)
        fix = did_you_mean(mode, POOLING_MODES) or f"set {known}, or package.module.function"
        raise ConfigError("pooling", "is not a pooling mode", fix, value=mode)
    function: PoolingFunction = found
    return function


@dataclass(frozen=True, slots=True)
class Pooling:
    """Pools by each mode in turn and concatenates the results.

    Args:
        modes: names out of `POOLING_MODES`, or dotted names of functions [n, T, D], [n, T], [n] ->
            [n, D] like those; the embedding has ``len(modes) * D`` dimensions.
        include_prompt: pool the prompt's tokens too (they are always attended to).

    Raises:
        ConfigError: an unknown mode, none, or one given twice.
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True

    def __post_init__(self) -> None:
        for mode in self.modes:
            pooling_function(mode)
        if not self.modes or len(set(self.modes)) < len(self.modes):
            known = ", ".join(POOLING_MODES)
            raise ConfigError(
                "pooling",
                "is empty or names a mode twice",
                f"list one or more of {known}, each once",
                value=list(self.modes),
            )

    def __call__(self, tokens_nTD: Tensor, mask_nT: Tensor, prompt_lengths_n: Tensor) -> Tensor:
        """[n, T, D], [n, T] (1 on real tokens), [n] -> [n, len(modes) * D]."""
        padding_n = padding_lengths(mask_nT)
        if not self.include_prompt:
            mask_nT = exclude_prompt(mask_nT, prompt_lengths_n)
        pooled = [pooling_function(mode)(tokens_nTD, mask_nT, padding_n) for mode in self.modes]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)


def _token(tokens_nTD: Tensor, position_n: Tensor) -> Tensor:
    index_n1D = position_n.to(torch.int64)[:, None, None].expand(-1, 1, tokens_nTD.shape[-1])
    return tokens_nTD.gather(1, index_n1D).squeeze(1)


def _sum_dtype(tokens_nTD: Tensor) -> torch.dtype:
    half = tokens_nTD.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half else tokens_nTD.dtype


def _masked_sum(tokens_nTD: Tensor, mask_nT: Tensor) -> tuple[Tensor, Tensor]:
    dtype = _sum_dtype(tokens_nTD)
    mask_nT1 = mask_nT[:, :, None].to(tokens_nTD.dtype)
    total_nD = (tokens_nTD * mask_nT1).sum(dim=1, dtype=dtype)
    return total_nD, mask_nT1.sum(dim=1, dtype=dtype).clamp(min=_EPSILON)
