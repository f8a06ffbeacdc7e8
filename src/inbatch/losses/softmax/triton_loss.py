"""`streamed_cross_entropy` by Triton kernels: forward holds a few numbers a row, and no panel.

Forward launches `reduce_kernel` once a block; candidates are split where there are too few rows to
fill the GPU. The log-sum-exps of blocks and splits then make the softmax complete. Backward walks
over panels of rows as `streaming` does, but of one block at a time: `weights_kernel` computes the
scores again and writes the panel's softmax, and two library products carry it on to rows and
candidates. Each product adds to its gradient in stream order: no atomics, so runs repeat exactly.

Why no kernel that carries gradients on itself: its accumulator is a tile of [R, D], more than
registers hold from D of about 256 on. It would compute the scores again for every slice of D, and
once for rows and once for candidates, where a panel of bounded size needs them once.

Beside the tiled form: 4 D + 2 E products an entry for 3 D + E; three passes over a panel in memory,
one to write and two to read, for about ten; no panel at all where no gradient is wanted.

Shape letters: G global rows, Q rows this rank owns, R rows of a panel, S splits, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from inbatch.losses.softmax.panels import Block, GuideFilter, Pairing, add_gradients
from inbatch.losses.softmax.triton_kernels import reduce_kernel, weights_kernel
from inbatch.losses.softmax.walk import (
    SoftmaxSpec,
    StreamStats,
    panel_rows,
    texts_of,
    through_length,
    unit_columns,
)


class Tiling(NamedTuple):
    """Shape of a kernel's tile and how the compiler spreads it."""

    rows: int
    candidates: int
    dims: int
    num_warps: int
    num_stages: int


# Fixed, not tuned while running: every rank and every run sums in the same order. Two float32 tiles
# of logits take 64 registers a thread, three stages of operands 72 KiB of shared memory.
TILING = Tiling(64, 128, 32, 8, 3)
INTERPRETER_TILING = Tiling(16, 32, 64, 1, 1)
# A GPU is full with about two programs a multiprocessor.
PROGRAMS_PER_MULTIPROCESSOR = 2
INTERPRETER_PROGRAMS = 4


class RowSums(NamedTuple):
    """Sums of the logits that forward keeps, each [Q]; logits are scores over the temperature."""

    positive: Tensor  # logit of the positive
    negatives: Tensor  # log-sum-exp of the kept negatives, hardened
    hardest: Tensor  # largest logit of the query's kept negatives, not hardened
    removed: Tensor  # int64, entries that the guide removed


@dataclass(frozen=True, slots=True)
class _Launch:
    """Whatever else the kernels need to know, settled once for forward and backward."""

    spec: SoftmaxSpec
    precision: Literal["ieee", "tf32"]
    tiling: Tiling


def is_interpreted() -> bool:
    """True if kernels run in Triton's interpreter, which takes tensors of any device."""
    return not isinstance(reduce_kernel, triton.runtime.JITFunction)


def fused_cross_entropy(spec: SoftmaxSpec, columns: Sequence[Tensor]) -> tuple[Tensor, StreamStats]:
    """`streamed_cross_entropy` by Triton kernels, for anything but float64.

    Products use TF32 where torch's own do (`torch.backends.cuda.matmul`); the guide's never do.

    Args:
        spec: the arguments without gradient.
        columns: each [G, D] on a CUDA device, or on any device if triton interprets.

    Returns:
        The loss, a scalar that can be differentiated once, and detached statistics.

    """
    guide = () if spec.guide is None else (*spec.guide.columns, spec.guide.threshold)
    if any(tensor.dtype == torch.float64 for tensor in (*columns, *guide)):
        raise ValueError("the Triton kernels compute in float32: use the tiled form for float64")
    if spec.text_ids is not None:
        raise ValueError("the Triton kernels do not compare texts: use the tiled form for text_ids")
    if not columns[0].is_cuda and not is_interpreted():
        raise ValueError(f"the Triton kernels run on CUDA, and columns are on {columns[0].device}")
    if spec.guide is not None:  # kernels take no strides
        units = tuple(column.float().contiguous() for column in spec.guide.columns)
        threshold_G = spec.guide.threshold.float().contiguous()
        spec = replace(spec, guide=GuideFilter(units, threshold_G))
    # Not `allow_tf32`: reading that fails where the newer setting was used.
    is_tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    tiling = INTERPRETER_TILING if is_interpreted() else TILING
    plan = _Launch(spec, "tf32" if is_tf32 else "ieee", tiling)
    loss, *stats = _FusedCrossEntropy.apply(plan, *columns)
    return loss, StreamStats(*stats)


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Launch, *columns: Tensor) -> tuple[Tensor, ...]:
        spec = plan.spec
        units, norms = zip(*(unit_columns(c, torch.float32, spec.normalize) for c in columns))
        sums = _reduce(plan, units)
        gap_Q = sums.negatives - sums.positive
        stats = (
            sums.positive * spec.temperature,
            sums.hardest * spec.temperature,
            sums.removed.sum(),
        )
        ctx.plan = plan
        ctx.dtypes = tuple(column.dtype for column in columns)
        # The softmax's denominator, and the positive's probability - 1 = -(sum of the negatives').
        lse_Q, own_weight_Q = torch.logaddexp(sums.negatives, sums.positive), -gap_Q.sigmoid()
        ctx.save_for_backward(lse_Q, own_weight_Q, *units, *norms)
        ctx.mark_non_differentiable(*stats)
        # log(1 + negatives / positive): exact where the positive is nearly everything.
        return softplus(gap_Q).mean(), *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        lse_Q, own_weight_Q, *tensors = ctx.saved_tensors
        units, norms = tensors[: len(ctx.dtypes)], tensors[len(ctx.dtypes) :]
        gradients = [
            torch.zeros_like(unit) if want else None
            for unit, want in zip(units, ctx.needs_input_grad[1:])
        ]
        _add_all_gradients(ctx.plan, units, gradients, lse_Q, own_weight_Q)
        scale = grad_loss.float() / (len(lse_Q) * ctx.plan.spec.temperature)
        outputs = []
        for unit_GD, norm_G, gradient_GD, dtype in zip(units, norms, gradients, ctx.dtypes):
            if gradient_GD is not None:
                through_length(gradient_GD, unit_GD, norm_G)
                gradient_GD = gradient_GD.mul_(scale).to(dtype)
            outputs.append(gradient_GD)
        return None, *outputs


def _reduce(plan: _Launch, columns: Sequence[Tensor]) -> RowSums:
    """One kernel a block; then blocks and splits are put together."""
    spec, tiling = plan.spec, plan.tiling
    num_rows, num_candidates = spec.rows.stop - spec.rows.start, len(columns[0])
    row_tiles = triton.cdiv(num_rows, tiling.rows)
    split_size = _split_size(row_tiles, num_candidates, columns[0].device, tiling)
    num_splits = triton.cdiv(num_candidates, split_size)
    target = next(block for block in spec.blocks if block.own == "positive")
    # Block, split, row; O(Q), for splits are few where rows are many.
    shape = (len(spec.blocks), num_splits, num_rows)
    lse, hardest, positive = columns[0].new_empty((3, *shape), dtype=torch.float32)
    removed = torch.empty(shape, dtype=torch.int32, device=columns[0].device)
    for k, block in enumerate(spec.blocks):
        with torch.cuda.device_of(columns[0]):  # triton launches on the current device
            reduce_kernel[(row_tiles, num_splits)](
                *_block_inputs(plan, block, columns),
                lse[k],
                hardest[k],
                positive[k],
                removed[k],
                first=spec.rows.start,
                num_rows=num_rows,
                num_candidates=num_candidates,
                split_size=split_size,
                **_options(plan, block, columns),
            )
    of_query = [k for k, block in enumerate(spec.blocks) if block.rows == target.rows]
    return RowSums(
        positive[spec.blocks.index(target)].sum(0),
        lse.flatten(0, 1).logsumexp(0),
        torch.stack([hardest[k] for k in of_query]).flatten(0, 1).amax(0),
        removed.sum((0, 1)),
    )


def _add_all_gradients(
    plan: _Launch,
    units: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    lse_Q: Tensor,
    own_weight_Q: Tensor,
) -> None:
    """Add each block's gradient to its two columns, panel after panel."""
    spec, tiling = plan.spec, plan.tiling
    num_candidates = len(units[0])
    step = panel_rows(spec, units[0], num_tiles=1)
    panel_RG = units[0].new_empty(step, num_candidates)
    texts = texts_of(spec, units)
    pairing = Pairing(texts, texts)
    for block in spec.blocks:
        if gradients[block.rows] is None and gradients[block.candidates] is None:
            continue
        for begin in range(0, len(lse_Q), step):
            own = slice(begin, min(begin + step, len(lse_Q)))
            part = slice(spec.rows.start + own.start, spec.rows.start + own.stop)
            tile_RG = panel_RG[: own.stop - own.start]
            row_tiles = triton.cdiv(len(tile_RG), tiling.rows)
            grid = triton.cdiv(num_candidates, tiling.candidates), row_tiles
            with torch.cuda.device_of(tile_RG):
                weights_kernel[grid](
                    *_block_inputs(plan, block, units),
                    lse_Q[own],
                    own_weight_Q[own],
                    tile_RG,
                    first=part.start,
                    num_rows=len(tile_RG),
                    num_candidates=num_candidates,
                    **_options(plan, block, units),
                )
            add_gradients(tile_RG, block, pairing, (gradients, gradients), part)


def _split_size(row_tiles: int, num_candidates: int, device: torch.device, tiling: Tiling) -> int:
    """Candidates of a split, whole tiles, so that rows times splits fill the GPU."""
    programs = INTERPRETER_PROGRAMS
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        programs = PROGRAMS_PER_MULTIPROCESSOR * properties.multi_processor_count
    candidate_tiles = triton.cdiv(num_candidates, tiling.candidates)
    num_splits = min(triton.cdiv(programs, row_tiles), candidate_tiles)
    return triton.cdiv(candidate_tiles, num_splits) * tiling.candidates


def _block_inputs(
    plan: _Launch, block: Block, columns: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The kernels' first five arguments."""
    rows_and_candidates = columns[block.rows], columns[block.candidates]
    guide = plan.spec.guide
    if guide is None:
        return *rows_and_candidates, None, None, None
    theirs = guide.columns[block.rows], guide.columns[block.candidates]
    return *rows_and_candidates, *theirs, guide.threshold


def _options(plan: _Launch, block: Block, columns: Sequence[Tensor]) -> dict[str, Any]:
    """The kernels' numbers and compile-time arguments."""
    spec, tiling = plan.spec, plan.tiling
    return {
        "inverse_temperature": 1 / spec.temperature,
        "harden_factor": 1 + spec.hardness_strength * spec.temperature,
        "DIM": columns[0].shape[1],
        "GUIDE_DIM": 0 if spec.guide is None else spec.guide.columns[0].shape[1],
        "OWN": block.own,
        "HARDENED": block.hardened,
        "BLOCK_R": tiling.rows,
        "BLOCK_C": tiling.candidates,
        "BLOCK_D": tiling.dims,
        "PRECISION": plan.precision,
        "num_warps": tiling.num_warps,
        "num_stages": tiling.num_stages,
        "enable_fp_fusion": True,  # one rounding, not two, in a float32 product's sums
    }
