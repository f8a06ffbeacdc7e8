"""Arithmetic on a panel by two Triton kernels a block, one pass over it each.

`reduce_kernel` makes logits of a block's products, takes out what is no negative, and reduces rows;
`weigh_kernel` makes weights of them, in 16 bits where the embeddings have 16. The products stay those of
the library, which knows each GPU's matrix units. An entry of a block moves 30 bytes: its product and the
guide's are written (8) and read (8), so is its logit (8), and its weight, which two products read (6).
torch's operations move 98.

Shape letters: K blocks, G candidates, R rows of a panel, S parts of the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from inbatch.losses.softmax.pairing import Pairing
from inbatch.losses.softmax.panels import (
    LOWEST,
    Block,
    Buffers,
    GuideFilter,
    Reduced,
    SoftmaxSpec,
    Weights,
    guide_scores,
    guide_threshold,
    in_float64,
    spares_own,
)
from inbatch.losses.softmax.products import Factor, multiply_raw, row_scale
from inbatch.losses.softmax.triton_kernels import reduce_kernel, weigh_kernel


class Launch(NamedTuple):
    """How a row is divided among programs. Fixed, not tuned while running: every run sums in the same order.

    block: candidates of a step of a program.
    num_warps: of a program.
    programs: that fill the device; a row is divided where there are fewer rows.
    """

    block: int
    num_warps: int
    programs: int


# Eight entries a thread and step. On a GPU four programs a multiprocessor, for 16 warps at least.
BLOCK, NUM_WARPS, PROGRAMS_PER_MULTIPROCESSOR = 1024, 4, 4
INTERPRETED = Launch(block=32, num_warps=1, programs=8)


def is_interpreted() -> bool:
    """True if kernels run in Triton's interpreter, which takes tensors of any device."""
    return not isinstance(reduce_kernel, triton.runtime.JITFunction)


@dataclass(frozen=True, slots=True)
class TritonArithmetic:
    """For CUDA devices and anything but float64."""

    launch: Launch
    row_multiple: int = 16

    @classmethod
    def on(cls, columns: Sequence[Tensor], guide: GuideFilter | None) -> TritonArithmetic:
        """The arithmetic for the device of some columns.

        Raises:
            ValueError: they are on another device than CUDA, or something is in float64.
        """
        if in_float64(columns, guide):
            raise ValueError(
                "the Triton kernels compute in float32: use the tiled form for float64"
            )
        if is_interpreted():
            return cls(INTERPRETED)
        if not columns[0].is_cuda:
            raise ValueError(
                f"the Triton kernels run on CUDA, and columns are on {columns[0].device}"
            )
        properties = torch.cuda.get_device_properties(columns[0].device)
        programs = PROGRAMS_PER_MULTIPROCESSOR * properties.multi_processor_count
        return cls(Launch(BLOCK, NUM_WARPS, programs))

    def reduce(self, spec: SoftmaxSpec, pairing: Pairing, buffers: Buffers, part: slice) -> Reduced:
        """Leave logits in the panel, -inf where an entry is no negative."""
        num_rows, num_candidates = buffers.tiles[0].shape
        num_parts, num_steps = self._parts(num_rows, num_candidates)
        shape = (len(spec.blocks), num_parts, num_rows)
        outputs = buffers.tiles[0].new_empty(4, *shape)
        removed = buffers.tiles[0].new_empty(shape, dtype=torch.int32)
        for k, block in enumerate(spec.blocks):
            tile_RG = buffers.tiles[k]
            inputs = _inputs(spec, pairing, block, tile_RG, buffers.guide, part)
            with torch.cuda.device_of(tile_RG):  # triton launches on the current device
                reduce_kernel[(num_rows, num_parts)](
                    *inputs,
                    *outputs[:, k].unbind(0),
                    removed[k],
                    own=part.start if pairing.own else num_candidates,
                    num_rows=num_rows,
                    num_candidates=num_candidates,
                    width=tile_RG.stride(0),
                    num_steps=num_steps,
                    harden_factor=spec.harden_factor,
                    OWN=block.own if pairing.own else "plain",
                    SPARED=spares_own(block, spec.blocks),
                    HARDENED=block.hardened,
                    PAIR_IDS=block.candidates < 2,
                    BLOCK=self.launch.block,
                    num_warps=self.launch.num_warps,
                )
        positive, hardest, peak, negatives = outputs
        peak_R = peak.flatten(0, 1).amax(0).clamp_min_(LOWEST)
        return Reduced(
            positive[spec.blocks.index(spec.target)].sum(0) if pairing.own else positive[0, 0, :0],
            torch.cat(spec.of_query(hardest)).amax(0),
            peak_R,
            (negatives * (peak - peak_R).exp()).sum((0, 1)),
            removed.sum((0, 1, 2)),
        )

    def weigh(
        self, buffers: Buffers, block: int, candidates: Factor, peak_R: Tensor, factor_R: Tensor
    ) -> Weights:
        """In place, or in the buffer of 16 bits."""
        tile_RG = buffers.tiles[block]
        weights_RG = tile_RG if buffers.weights is None else buffers.weights
        num_rows, num_candidates = tile_RG.shape
        num_parts, num_steps = self._parts(num_rows, num_candidates)
        with torch.cuda.device_of(tile_RG):
            weigh_kernel[(num_rows, num_parts)](
                tile_RG,
                weights_RG,
                peak_R,
                factor_R,
                candidates.scale,
                num_rows=num_rows,
                num_candidates=num_candidates,
                width=tile_RG.stride(0),
                num_steps=num_steps,
                BLOCK=self.launch.block,
                num_warps=self.launch.num_warps,
            )
        return Weights(weights_RG)

    def _parts(self, num_rows: int, num_candidates: int) -> tuple[int, int]:
        """Into how many parts a row is divided, and the steps of one."""
        steps = triton.cdiv(num_candidates, self.launch.block)
        parts = min(steps, triton.cdiv(self.launch.programs, num_rows))
        of_part = triton.cdiv(steps, parts)
        return triton.cdiv(steps, of_part), of_part


def _inputs(
    spec: SoftmaxSpec,
    pairing: Pairing,
    block: Block,
    tile_RG: Tensor,
    guide_RG: Tensor | None,
    part: slice,
) -> tuple[Any, ...]:
    """Multiply, and return the kernel's first eight arguments."""
    rows = pairing.rows.columns[block.rows][part]
    candidates = pairing.candidates.columns[block.candidates]
    multiply_raw(rows, candidates, tile_RG)
    scale = row_scale(rows, 1 / spec.temperature)
    if isinstance(scale, float):
        scale = tile_RG.new_full((len(tile_RG),), scale)
    elif scale.ndim == 0:
        scale = scale.to(tile_RG.dtype).expand(len(tile_RG)).contiguous()
    guide: tuple[Tensor | None, ...] = (None, None, None)
    if spec.guide is not None and guide_RG is not None:
        _, theirs, others = guide_scores(guide_RG, block, pairing, part)
        threshold_R = guide_threshold(theirs, spec.guide.threshold[part]).float()
        guide = (guide_RG, others.scale, threshold_R)
    elif spec.own_guide is not None:
        guide = (None, None, (spec.own_guide.threshold[part] / spec.temperature).float())
    ids: tuple[Tensor | None, ...] = (None, None)
    if pairing.rows.ids is not None and pairing.candidates.ids is not None:
        own = torch.stack([ids_G[part] for ids_G in pairing.rows.ids_of(0)])
        ids = (own, torch.stack(list(pairing.candidates.ids_of(block.candidates))))
    return tile_RG, scale, candidates.scale, *guide, *ids
