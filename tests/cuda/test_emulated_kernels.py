"""A GPU on which the Triton kernels cannot run trains all the same, and says so."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import torch

from helpers.emulated_cuda.process import group, on_gpu
from inbatch.losses import LossInput, MultipleNegativesRanking

pytestmark = group


def losses(number: int) -> tuple[list[float], str]:
    generator = torch.Generator().manual_seed(0)
    columns = tuple(torch.randn(2, 9, 16, generator=generator).cuda())
    inputs = LossInput(columns, slice(0, 9))
    said = io.StringIO()
    with redirect_stdout(said):
        values = [float(MultipleNegativesRanking()(inputs).loss) for _ in range(number)]
    tiled = float(MultipleNegativesRanking(implementation="tiled")(inputs).loss)
    return [*values, tiled], said.getvalue()


def test_kernels_that_fail_are_left_alone() -> None:
    """No compiled code runs on an emulated device."""
    values, said = on_gpu(losses, 2)
    assert len(set(values)) == 1
    assert said.count("the Triton kernels of the loss do not work on cuda:0 (") == 1
    assert "torch's operations are used" in said
