"""Triton kernels for a panel of logits; `triton_panels` launches them and explains the plan.

A program takes one row and a part of its candidates. Both kernels read and write memory in order and keep
nothing but a few numbers of the row: no products, no shared memory but for sums.

Importing this module imports triton. Whether it is interpreted is decided then, by triton.

Shape letters: G candidates, W entries from a row to the next, R rows of a panel, S parts of the candidates,
C candidates of a step. W is a multiple of 16, so that loads and stores take 16 bytes.
"""

# Triton reads constexpr annotations; the others are for people and type checkers.
from __future__ import annotations

import triton
import triton.language as tl

# Sizes change with the batch: compiling anew for those that happen to be 1, or multiples of 16,
# costs seconds and gains nothing, but for the number of candidates, whose scales are then loaded by fours.
SIZES = ["own", "num_rows", "num_steps"]


@triton.jit(do_not_specialize=SIZES)
def reduce_kernel(
    logits_ptr: tl.tensor,  # [R, W] in: products; out: masked logits, hardened
    row_scale_ptr: tl.tensor,  # [R] what products of a row are multiplied by
    candidate_scale_ptr: tl.tensor,  # [G], None for 1
    guide_ptr: tl.tensor,  # [R, W] the guide's products, None without a guide
    guide_scale_ptr: tl.tensor,  # [G], None for 1
    threshold_ptr: tl.tensor,  # [R] of the guide's products, or of logits without these; None for none
    own_ids_ptr: tl.tensor,  # [2, R] of query and positive, None where texts are not compared
    ids_ptr: tl.tensor,  # [1 or 2, G] of candidates
    positive_ptr: tl.tensor,  # [S, R] out: logit of the own entry in the part that has it, else 0
    hardest_ptr: tl.tensor,  # [S, R] out: largest logit of a kept negative before hardening
    peak_ptr: tl.tensor,  # [S, R] out: largest logit of a kept negative, -inf where none is
    negatives_ptr: tl.tensor,  # [S, R] out: sum of exp(logit - peak) over them
    removed_ptr: tl.tensor,  # [S, R] out: entries that the guide removed, int32
    own: tl.tensor,  # candidate of row 0 that is its own; those of others follow
    num_rows: tl.tensor,
    num_candidates: tl.tensor,
    width: tl.tensor,  # W
    num_steps: tl.tensor,  # of a part, BLOCK candidates each
    harden_factor: tl.tensor,
    OWN: tl.constexpr,
    SPARED: tl.constexpr,
    HARDENED: tl.constexpr,
    PAIR_IDS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Finish the logits of one block, and reduce its negatives to a few numbers a row; grid (R, S)."""
    row = tl.program_id(0)
    part = tl.program_id(1)
    start = row.to(tl.int64) * width
    row_scale = tl.load(row_scale_ptr + row)
    if threshold_ptr is not None:
        threshold = tl.load(threshold_ptr + row)
    if own_ids_ptr is not None:
        query = tl.load(own_ids_ptr + row)
        text = tl.load(own_ids_ptr + num_rows + row)
    minus_infinity = float("-inf")
    positive = 0.0
    hardest = minus_infinity
    peak = minus_infinity
    negatives = 0.0
    removed = 0

    for step in range(
        part * num_steps, min((part + 1) * num_steps, tl.cdiv(num_candidates, BLOCK))
    ):
        places_C = step * BLOCK + tl.arange(0, BLOCK)
        held_C = places_C < width
        real_C = places_C < num_candidates
        products_C = tl.load(logits_ptr + start + places_C, mask=held_C, other=0.0)
        logits_C = (
            tl.where(real_C, products_C, 0.0) * row_scale
        )  # what lies between rows is anything
        if candidate_scale_ptr is not None:
            logits_C *= tl.load(candidate_scale_ptr + places_C, mask=real_C, other=0.0)
        own_C = places_C == own + row
        kept_C = real_C
        if OWN != "plain":
            kept_C = kept_C & (own_C == 0)
        if threshold_ptr is not None:
            scores_C = logits_C
            if guide_ptr is not None:
                products_C = tl.load(guide_ptr + start + places_C, mask=held_C, other=0.0)
                scores_C = tl.where(real_C, products_C, 0.0)
                if guide_scale_ptr is not None:
                    scores_C *= tl.load(guide_scale_ptr + places_C, mask=real_C, other=0.0)
            above_C = scores_C > threshold
            if SPARED:
                above_C = above_C & (own_C == 0)
            removed += tl.sum((kept_C & above_C).to(tl.int32), 0)
            kept_C = kept_C & (above_C == 0)
        if own_ids_ptr is not None:
            ids_C = tl.load(ids_ptr + places_C, mask=real_C, other=-1)
            known_C = (ids_C == query) | (ids_C == text)
            if PAIR_IDS:
                ids_C = tl.load(ids_ptr + num_candidates + places_C, mask=real_C, other=-1)
                known_C = (known_C | (ids_C == query) | (ids_C == text)) & (own_C == 0)
            kept_C = kept_C & (known_C == 0)
        if OWN == "positive":
            positive += tl.sum(tl.where(own_C, logits_C, 0.0), 0)
        logits_C = tl.where(kept_C, logits_C, minus_infinity)
        hardest = tl.maximum(hardest, tl.max(logits_C, 0))
        if HARDENED == "all":
            logits_C = logits_C * harden_factor
        elif HARDENED == "own":
            logits_C = tl.where(own_C, logits_C * harden_factor, logits_C)
        elif HARDENED == "others":
            logits_C = tl.where(own_C, logits_C, logits_C * harden_factor)
        tl.store(logits_ptr + start + places_C, logits_C, mask=held_C)
        new_peak = tl.maximum(peak, tl.max(logits_C, 0))
        # Where nothing is kept so far, -inf - -inf would be NaN.
        shift = tl.where(new_peak == minus_infinity, 0.0, new_peak)
        negatives = negatives * tl.exp(peak - shift) + tl.sum(tl.exp(logits_C - shift), 0)
        peak = new_peak

    out = part * num_rows + row
    tl.store(positive_ptr + out, positive)
    tl.store(hardest_ptr + out, hardest)
    tl.store(peak_ptr + out, peak)
    tl.store(negatives_ptr + out, negatives)
    tl.store(removed_ptr + out, removed)


@triton.jit(do_not_specialize=SIZES[1:])
def weigh_kernel(
    logits_ptr: tl.tensor,  # [R, W] masked logits
    weights_ptr: tl.tensor,  # [R, W] out; may be the logits' memory
    peak_ptr: tl.tensor,  # [R]
    factor_ptr: tl.tensor,  # [R]
    candidate_scale_ptr: tl.tensor,  # [G], None for 1
    num_rows: tl.tensor,
    num_candidates: tl.tensor,
    width: tl.tensor,  # W
    num_steps: tl.tensor,  # of a part, BLOCK candidates each
    BLOCK: tl.constexpr,
) -> None:
    """Write ``exp(logit - peak) * factor * scale`` of one block; grid (R, S)."""
    row = tl.program_id(0)
    start = row.to(tl.int64) * width
    peak = tl.load(peak_ptr + row)
    factor = tl.load(factor_ptr + row)
    part = tl.program_id(1)
    for step in range(
        part * num_steps, min((part + 1) * num_steps, tl.cdiv(num_candidates, BLOCK))
    ):
        places_C = step * BLOCK + tl.arange(0, BLOCK)
        held_C = places_C < width
        logits_C = tl.load(logits_ptr + start + places_C, mask=held_C, other=float("-inf"))
        weights_C = tl.exp(logits_C - peak) * factor
        if candidate_scale_ptr is not None:
            real_C = places_C < num_candidates
            weights_C *= tl.load(candidate_scale_ptr + places_C, mask=real_C, other=0.0)
        tl.store(weights_ptr + start + places_C, weights_C, mask=held_C)
