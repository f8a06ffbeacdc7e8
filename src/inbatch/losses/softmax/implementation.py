"""Which operations work on a panel between its products: torch's, or Triton kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from inbatch.device.capability import AMPERE
from inbatch.losses.softmax.gathered import gathered_cross_entropy
from inbatch.losses.softmax.panels import Arithmetic, Block, GuideFilter, SoftmaxSpec, in_float64
from inbatch.losses.softmax.torch_panels import TorchArithmetic

Implementation = Literal["auto", "tiled", "triton"]
IMPLEMENTATIONS = ("auto", "tiled", "triton")

_TOLERANCE = 1e-3  # of the trial; another product than the right one misses it by far


def choose_arithmetic(
    implementation: Implementation, columns: Sequence[Tensor], guide: GuideFilter | None
) -> Arithmetic:
    """The arithmetic for these columns; "auto" takes the kernels where a trial of them went well.

    Raises:
        ValueError: kernels are asked for on another device than CUDA or in float64.
    """
    if implementation == "auto":
        suitable = columns[0].is_cuda and not in_float64(columns, guide)
        chosen = suitable and _kernels_work(columns[0].device)
        implementation = "triton" if chosen else "tiled"
    if implementation == "tiled":
        return TorchArithmetic()
    return _kernels(columns, guide)


def obstacle_of_kernels(device: torch.device) -> str:
    """Say why Triton kernels cannot run on a device; empty where they should."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return "needs a GPU"
    if find_spec("triton") is None:
        return "needs the package triton"
    if torch.cuda.get_device_capability(device) < AMPERE:
        return f"needs a GPU of compute capability {AMPERE[0]}.{AMPERE[1]}"
    return ""


@cache
def _kernels_work(device: torch.device) -> bool:
    """Compile and try the kernels once, so that a driver or compiler that fails ends no run."""
    if obstacle_of_kernels(device):
        return False
    try:
        problem = trial(device)
    except Exception as error:  # of the compiler, the driver or the launch
        problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if problem:
        print(
            f"the Triton kernels of the loss do not work on {device} ({problem}); "
            "torch's operations are used: set loss.implementation=tiled to skip the trial"
        )
    return not problem


def trial(device: torch.device, *, num_rows: int = 96) -> str:
    """Say how the kernels differ from torch's operations on a small batch; empty where they agree.

    Args:
        device: to compute on.
        num_rows: of the batch; more than a kernel takes at a time, and no multiple of that.
    """
    draws = torch.Generator().manual_seed(0)
    queries, documents, theirs = torch.randn(3, num_rows, 64, generator=draws).to(device).unbind()
    guide = GuideFilter((theirs, theirs.roll(1, 0)), torch.full((num_rows,), 0.1, device=device))
    spec = SoftmaxSpec(
        (Block(0, 1, "positive"), Block(0, 0, "masked")),
        rows=slice(5, num_rows - 6),
        temperature=0.1,
        normalize=True,
        hardness_strength=0.0,
        guide=guide,
        text_ids=None,
        panel_bytes=None,
        panel_halvings=0,
        exact_in=None,
        mixed=False,
    )
    found = []
    for arithmetic in (TorchArithmetic(), _kernels((queries, documents), guide)):
        columns = [column.clone().requires_grad_() for column in (queries, documents)]
        with torch.enable_grad():
            loss, _ = gathered_cross_entropy(spec, columns, arithmetic)
        found.append([loss.detach(), *torch.autograd.grad(loss, columns)])
    errors = [float((a - b).norm() / a.norm()) for a, b in zip(*found)]
    return "" if max(errors) < _TOLERANCE else f"results differ by {max(errors):.1g}"


def _kernels(columns: Sequence[Tensor], guide: GuideFilter | None) -> Arithmetic:
    from inbatch.losses.softmax.triton_panels import TritonArithmetic  # imports triton

    return TritonArithmetic.on(columns, guide)
