"""Pooling against sentence-transformers' Pooling."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling as Oracle
from torch import Tensor

from inbatch.encoder.pooling import POOLING_MODES, Pooling, exclude_prompt
from inbatch.errors import ConfigError

ORACLE_NAMES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "weighted_mean": "weightedmean",
    "last_token": "lasttoken",
}
LENGTHS = (7, 4, 9, 5)
WIDTH = 9
DIMENSION = 6


def make_tokens(side: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    tokens = torch.randn(
        len(LENGTHS), WIDTH, DIMENSION, generator=torch.Generator().manual_seed(3)
    ).to(dtype)
    mask = torch.zeros(len(LENGTHS), WIDTH, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    return tokens, mask if side == "right" else mask.flip(1)


def oracle(
    modes: tuple[str, ...],
    tokens: Tensor,
    mask: Tensor,
    *,
    include_prompt: bool,
    prompt_length: int,
) -> Tensor:
    pooling = Oracle(DIMENSION, tuple(ORACLE_NAMES[m] for m in modes), include_prompt)
    features = {"token_embeddings": tokens, "attention_mask": mask, "prompt_length": prompt_length}
    return pooling(features)["sentence_embedding"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("prompt_length", [0, 3])
@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_equals_sentence_transformers(
    mode: str, side: str, include_prompt: bool, prompt_length: int, dtype: torch.dtype
) -> None:
    tokens, mask = make_tokens(side, dtype)
    given = mask.clone()
    mine, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    prompts = torch.full((len(LENGTHS),), prompt_length)
    got = Pooling((mode,), include_prompt)(mine, mask, prompts)
    want = oracle((mode,), theirs, mask, include_prompt=include_prompt, prompt_length=prompt_length)
    assert got.dtype == dtype
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    weights = torch.arange(1.0, got.numel() + 1).view_as(got)
    (got.float() * weights).sum().backward()
    (want.float() * weights).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=0)
    assert torch.equal(mask, given), "the caller's mask changed"


def test_concatenates_in_the_given_order() -> None:
    tokens, mask = make_tokens("right")
    modes = ("last_token", "mean", "cls")
    got = Pooling(modes)(tokens, mask, torch.zeros(len(LENGTHS), dtype=torch.int64))
    want = oracle(modes, tokens, mask, include_prompt=True, prompt_length=0)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert got.shape == (len(LENGTHS), 3 * DIMENSION)


@pytest.mark.parametrize("side", ["right", "left"])
def test_each_text_has_its_own_prompt_length(side: str) -> None:
    tokens, mask = make_tokens(side)
    prompts = torch.tensor([0, 1, 4, 2])
    got = Pooling(("mean",), include_prompt=False)(tokens, mask, prompts)
    for row, length in enumerate(prompts.tolist()):
        want = oracle(
            ("mean",),
            tokens[row : row + 1],
            mask[row : row + 1],
            include_prompt=False,
            prompt_length=length,
        )
        torch.testing.assert_close(got[row : row + 1], want)


def test_padding_has_no_influence() -> None:
    tokens, mask = make_tokens("right")
    other = torch.where(mask[:, :, None] == 1, tokens, tokens + 100)
    zeros = torch.zeros(len(LENGTHS), dtype=torch.int64)
    for mode in POOLING_MODES:
        torch.testing.assert_close(
            Pooling((mode,))(tokens, mask, zeros), Pooling((mode,))(other, mask, zeros)
        )


@pytest.mark.parametrize("mode", ["mean", "mean_sqrt_len", "weighted_mean", "last_token"])
def test_text_that_is_all_prompt_pools_to_zero(mode: str) -> None:
    tokens, mask = make_tokens("right")
    got = Pooling((mode,), include_prompt=False)(tokens, mask, torch.tensor(LENGTHS))
    assert torch.equal(got, torch.zeros_like(got))


def test_excluding_no_prompt_keeps_the_mask() -> None:
    _, mask = make_tokens("left")
    assert torch.equal(exclude_prompt(mask, torch.zeros(len(LENGTHS), dtype=torch.int64)), mask)


@pytest.mark.parametrize("modes", [("average",), (), ("mean", "mean"), ("torch.nn.no_such",)])
def test_refuses_modes(modes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"pooling=.*weighted_mean"):
        Pooling(modes)


def test_asks_for_a_near_mode() -> None:
    with pytest.raises(
        ConfigError, match=r"pooling='men' is not a pooling mode: did you mean 'mean'"
    ):
        Pooling(("men",))


def first_and_last(tokens: torch.Tensor, mask: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """A mode of a user's own."""
    return POOLING_MODES["cls"](tokens, mask, padding) + POOLING_MODES["last_token"](
        tokens, mask, padding
    )


def test_a_function_of_another_package_is_a_mode() -> None:
    tokens, mask = make_tokens("right")
    none = torch.zeros(len(LENGTHS), dtype=torch.int64)
    own = Pooling((f"{__name__}.first_and_last", "mean"))(tokens, mask, none)
    parts = [Pooling((mode,))(tokens, mask, none) for mode in ("cls", "last_token", "mean")]
    torch.testing.assert_close(own, torch.cat([parts[0] + parts[1], parts[2]], dim=-1))
