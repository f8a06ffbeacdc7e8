"""Triton kernels of the softmax cross-entropy. `triton_loss` launches them and explains the plan.

Both compute the same tile of masked logits, R rows against C candidates of one block, from the
embeddings: two matrix products (embeddings, guide), the guide's threshold, the own entry, hardness.
`reduce_kernel` walks over candidates and keeps running maxima and sums; `weights_kernel` writes the
tile's gradient. Nothing but what is stored leaves the chip.

Importing this module imports triton. Whether it is interpreted is decided then, by triton.

Shape letters: G global rows, Q rows of the launch, S splits of the candidates, R rows and C
candidates of a tile, D embedding dimension, E guide dimension (both known when compiling).
"""

# Triton reads constexpr annotations; the others are for people and type checkers.
from __future__ import annotations

import triton
import triton.language as tl

# Sizes change with the batch: compiling anew for those that happen to be 1, or multiples of 16,
# costs seconds and gains nothing.
_SIZES = ["first", "num_rows", "num_candidates", "split_size"]


@triton.jit
def _products(
    rows_ptr: tl.tensor,
    candidates_ptr: tl.tensor,
    rows_R: tl.tensor,
    candidates_C: tl.tensor,
    has_row_R: tl.tensor,
    has_candidate_C: tl.tensor,
    DIM: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Inner products [R, C] in float32; zero outside of the matrices."""
    products_RC = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.float32)
    # int64: a column of 2^20 rows and dimension 4096 has 2^32 entries.
    row_starts_R = rows_R.to(tl.int64) * DIM
    candidate_starts_C = candidates_C.to(tl.int64) * DIM
    for start in range(0, DIM, BLOCK_D):
        dims_D = start + tl.arange(0, BLOCK_D)
        rows_RD = tl.load(
            rows_ptr + row_starts_R[:, None] + dims_D[None, :],
            mask=has_row_R[:, None] & (dims_D < DIM)[None, :],
            other=0.0,
        )
        candidates_DC = tl.load(
            candidates_ptr + candidate_starts_C[None, :] + dims_D[:, None],
            mask=has_candidate_C[None, :] & (dims_D < DIM)[:, None],
            other=0.0,
        )
        products_RC = tl.dot(rows_RD, candidates_DC, products_RC, input_precision=PRECISION)
    return products_RC


@triton.jit
def _tile(
    rows_ptr: tl.tensor,
    candidates_ptr: tl.tensor,
    guide_rows_ptr: tl.tensor,
    guide_candidates_ptr: tl.tensor,
    threshold_R: tl.tensor,
    rows_R: tl.tensor,
    candidates_C: tl.tensor,
    has_row_R: tl.tensor,
    num_candidates: tl.tensor,
    inverse_temperature: tl.tensor,
    DIM: tl.constexpr,
    GUIDE_DIM: tl.constexpr,
    OWN: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Logits before hardening, and three masks: kept negative, removed by the guide, own entry."""
    has_candidate_C = candidates_C < num_candidates
    logits_RC = inverse_temperature * _products(
        rows_ptr,
        candidates_ptr,
        rows_R,
        candidates_C,
        has_row_R,
        has_candidate_C,
        DIM,
        BLOCK_R,
        BLOCK_C,
        BLOCK_D,
        PRECISION,
    )
    own_RC = rows_R[:, None] == candidates_C[None, :]
    kept_RC = has_row_R[:, None] & has_candidate_C[None, :]
    if OWN != "plain":
        kept_RC = kept_RC & (own_RC == 0)
    if GUIDE_DIM > 0:
        # Always in full float32: rounding to TF32 would decide ties with the threshold.
        guide_RC = _products(
            guide_rows_ptr,
            guide_candidates_ptr,
            rows_R,
            candidates_C,
            has_row_R,
            has_candidate_C,
            GUIDE_DIM,
            BLOCK_R,
            BLOCK_C,
            BLOCK_D,
            "ieee",
        )
        above_RC = guide_RC > threshold_R[:, None]
        removed_RC = kept_RC & above_RC
        kept_RC = kept_RC & (above_RC == 0)
    else:
        removed_RC = kept_RC & (kept_RC == 0)
    return logits_RC, kept_RC, removed_RC, own_RC


@triton.jit
def _harden(
    logits_RC: tl.tensor, own_RC: tl.tensor, factor: tl.tensor, HARDENED: tl.constexpr
) -> tl.tensor:
    """Multiply the logits of a block's hardened entries."""
    if HARDENED == "all":
        logits_RC = logits_RC * factor
    elif HARDENED == "own":
        logits_RC = tl.where(own_RC, logits_RC * factor, logits_RC)
    elif HARDENED == "others":
        logits_RC = tl.where(own_RC, logits_RC, logits_RC * factor)
    return logits_RC


@triton.jit(do_not_specialize=_SIZES)
def reduce_kernel(
    rows_ptr: tl.tensor,  # [G, D]
    candidates_ptr: tl.tensor,  # [G, D]
    guide_rows_ptr: tl.tensor,  # [G, E], None without guide
    guide_candidates_ptr: tl.tensor,  # [G, E], None without guide
    threshold_ptr: tl.tensor,  # [G], None without guide
    lse_ptr: tl.tensor,  # [S, Q] out: log-sum-exp of the kept negatives
    hardest_ptr: tl.tensor,  # [S, Q] out: largest logit of a kept negative before hardening
    positive_ptr: tl.tensor,  # [S, Q] out: logit of the own entry in the split that has it, else 0
    removed_ptr: tl.tensor,  # [S, Q] out: entries that the guide removed, int32
    first: tl.tensor,  # the launch's first row in the global batch
    num_rows: tl.tensor,
    num_candidates: tl.tensor,
    split_size: tl.tensor,  # candidates of a split
    inverse_temperature: tl.tensor,
    harden_factor: tl.tensor,
    DIM: tl.constexpr,
    GUIDE_DIM: tl.constexpr,
    OWN: tl.constexpr,
    HARDENED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Reduce the logits of one block to a few numbers a row; grid (row tiles, S)."""
    local_R = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    split = tl.program_id(1)
    has_row_R = local_R < num_rows
    rows_R = first + local_R
    threshold_R = tl.zeros([BLOCK_R], dtype=tl.float32)
    if GUIDE_DIM > 0:
        threshold_R = tl.load(threshold_ptr + rows_R, mask=has_row_R, other=0.0)
    minus_infinity = float("-inf")
    peak_R = tl.full([BLOCK_R], minus_infinity, dtype=tl.float32)
    hardest_R = tl.full([BLOCK_R], minus_infinity, dtype=tl.float32)
    total_R = tl.zeros([BLOCK_R], dtype=tl.float32)
    positive_R = tl.zeros([BLOCK_R], dtype=tl.float32)
    num_removed_R = tl.zeros([BLOCK_R], dtype=tl.int32)

    begin = split * split_size
    for start in range(begin, min(begin + split_size, num_candidates), BLOCK_C):
        candidates_C = start + tl.arange(0, BLOCK_C)
        logits_RC, kept_RC, removed_RC, own_RC = _tile(
            rows_ptr,
            candidates_ptr,
            guide_rows_ptr,
            guide_candidates_ptr,
            threshold_R,
            rows_R,
            candidates_C,
            has_row_R,
            num_candidates,
            inverse_temperature,
            DIM,
            GUIDE_DIM,
            OWN,
            BLOCK_R,
            BLOCK_C,
            BLOCK_D,
            PRECISION,
        )
        if OWN == "positive":
            positive_R += tl.sum(tl.where(own_RC, logits_RC, 0.0), 1)
        num_removed_R += tl.sum(removed_RC.to(tl.int32), 1)
        masked_RC = tl.where(kept_RC, logits_RC, minus_infinity)
        hardest_R = tl.maximum(hardest_R, tl.max(masked_RC, 1))
        masked_RC = _harden(masked_RC, own_RC, harden_factor, HARDENED)
        new_peak_R = tl.maximum(peak_R, tl.max(masked_RC, 1))
        # Where nothing is kept so far, -inf - -inf would be NaN.
        shift_R = tl.where(new_peak_R == minus_infinity, 0.0, new_peak_R)
        total_R = total_R * tl.exp(peak_R - shift_R)
        total_R += tl.sum(tl.exp(masked_RC - shift_R[:, None]), 1)
        peak_R = new_peak_R

    empty_R = total_R == 0.0
    lse_R = tl.where(empty_R, minus_infinity, peak_R + tl.log(tl.where(empty_R, 1.0, total_R)))
    out_R = split.to(tl.int64) * num_rows + local_R
    tl.store(lse_ptr + out_R, lse_R, mask=has_row_R)
    tl.store(hardest_ptr + out_R, hardest_R, mask=has_row_R)
    tl.store(positive_ptr + out_R, positive_R, mask=has_row_R)
    tl.store(removed_ptr + out_R, num_removed_R, mask=has_row_R)


@triton.jit(do_not_specialize=_SIZES[:-1])
def weights_kernel(
    rows_ptr: tl.tensor,  # [G, D]
    candidates_ptr: tl.tensor,  # [G, D]
    guide_rows_ptr: tl.tensor,  # [G, E], None without guide
    guide_candidates_ptr: tl.tensor,  # [G, E], None without guide
    threshold_ptr: tl.tensor,  # [G], None without guide
    lse_ptr: tl.tensor,  # [Q] log-sum-exp of all of the row's softmax, the positive included
    own_weight_ptr: tl.tensor,  # [Q] what the positive's entry gets
    weights_ptr: tl.tensor,  # [Q, G] out
    first: tl.tensor,  # the launch's first row in the global batch
    num_rows: tl.tensor,
    num_candidates: tl.tensor,
    inverse_temperature: tl.tensor,
    harden_factor: tl.tensor,
    DIM: tl.constexpr,
    GUIDE_DIM: tl.constexpr,
    OWN: tl.constexpr,
    HARDENED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Write a row panel of one block's ``d loss / d logit``; grid (candidate tiles, row tiles)."""
    candidates_C = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    local_R = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    has_row_R = local_R < num_rows
    rows_R = first + local_R
    threshold_R = tl.zeros([BLOCK_R], dtype=tl.float32)
    if GUIDE_DIM > 0:
        threshold_R = tl.load(threshold_ptr + rows_R, mask=has_row_R, other=0.0)
    logits_RC, kept_RC, _, own_RC = _tile(
        rows_ptr,
        candidates_ptr,
        guide_rows_ptr,
        guide_candidates_ptr,
        threshold_R,
        rows_R,
        candidates_C,
        has_row_R,
        num_candidates,
        inverse_temperature,
        DIM,
        GUIDE_DIM,
        OWN,
        BLOCK_R,
        BLOCK_C,
        BLOCK_D,
        PRECISION,
    )
    logits_RC = _harden(logits_RC, own_RC, harden_factor, HARDENED)
    lse_R = tl.load(lse_ptr + local_R, mask=has_row_R, other=0.0)
    weights_RC = tl.exp(tl.where(kept_RC, logits_RC - lse_R[:, None], float("-inf")))
    if OWN == "positive":
        own_weight_R = tl.load(own_weight_ptr + local_R, mask=has_row_R, other=0.0)
        weights_RC = tl.where(own_RC, own_weight_R[:, None], weights_RC)
    tl.store(
        weights_ptr + local_R.to(tl.int64)[:, None] * num_candidates + candidates_C[None, :],
        weights_RC,
        mask=has_row_R[:, None] & (candidates_C < num_candidates)[None, :],
    )
