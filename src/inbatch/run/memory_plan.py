"""Estimates a step: memory of a rank by part, arithmetic, and the sizes that fit.

Nothing here looks at a device or a model: numbers in, numbers out. Estimates err by some tens of
percent; they tell whether a run fits and what fills the memory, and the step's out-of-memory handling
covers the rest.

Shape letters: G global rows, b local rows, C columns, D dimension, T tokens of a text.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from inbatch.losses.softmax.walk import rows_within
from inbatch.run.step_size import ModelSize, StepSize

GIB = 2**30

# Computed tokens of a chunk. On a CPU small chunks stay in its caches and pad little: product triplets
# (9, 33, 33 tokens; batch 256) pad by 2 % at 1,024 tokens. A GPU wants enough to be busy: this is for the
# width of BERT-base, see `usual_chunk_tokens`.
AUTO_CHUNK_TOKENS = {"cpu": 1024, "cuda": 32768}
_WIDTH = 768
_GPU_TOKENS = (8192, 131072)
# Without a transformer: a chunk costs a gradient of the whole table, so it should hold the whole batch.
STATIC_CHUNK_TOKENS = 2**20
_STATIC_TOKEN_BYTES = 48  # ids and masks, and their order in backward
# Share of free memory that a plan may use. A CPU's is shared with the page cache and loaders.
USABLE = {"cpu": 0.5, "cuda": 0.9}
# The chunk that is computed may take this share of what a plan has for activations.
CHUNK_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """The parts of the memory that a strategy divides over ranks: nothing under DDP.

    No strategy divides the gradients of a chunked step.
    """

    parameters: bool = False
    optimizer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one rank by part."""

    weights: float  # and their casts to 16 bits, and their average
    gradients: float  # and the buckets in which DDP reduces them
    optimizer: float
    embeddings: float  # embeddings, their gradients, the loss's buffers
    guide: float  # guide embeddings of the batch; a live guide's weights
    chunk: float  # activations of the chunk that is computed
    kept: float = 0.0  # graphs that are kept between the passes

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return float(sum(getattr(self, part.name) for part in fields(self)))

    def describe(self) -> str:
        """Total and parts of at least 1 % of it, the largest first."""
        parts = sorted(((getattr(self, f.name), f.name) for f in fields(self)), reverse=True)
        named = ", ".join(
            f"{name} {_gib(size)}" for size, name in parts if size >= 0.01 * self.total
        )
        return f"{_gib(self.total)} GiB per rank ({named})"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The chosen sizes, with the memory and the operations of a step of one rank."""

    chunk_tokens: int | None
    keep_gib: float | None
    memory: Memory
    flop: float


def activation_bytes_per_token(model: ModelSize, step: StepSize) -> float:
    """Bytes that autograd holds for one computed token of a transformer in training.

    Each layer holds about eight vectors of the width (queries, keys, values, attention output,
    inputs of projections and norms), two more with dropout, and two of the feed-forward layer around
    its activation. A CPU's attention with dropout holds its weights as well, three times T values a
    head. Measured for BERT in float32; within a tenth of it. Without a transformer only token ids are held.
    """
    if model.layers == 0:
        return float(_STATIC_TOKEN_BYTES)
    values: float = 8 * model.width + 2 * model.intermediate
    if model.dropout:
        values += 2 * model.width
        if step.device == "cpu":
            values += 3 * model.heads * step.text_tokens
    return (model.layers * values + 2 * model.width) * step.activation_bytes


def step_memory(
    model: ModelSize,
    step: StepSize,
    *,
    chunk_tokens: int | None,
    optimizer_states: float,
    sharding: Sharding,
    num_blocks: int = 0,
    live_guide_parameters: int = 0,
    averaged: bool = False,
) -> Memory:
    """Memory of a rank without kept graphs; `chunk_tokens` None means one chunk for the batch.

    Args:
        model: the encoder.
        step: the batch.
        chunk_tokens: computed tokens of a chunk.
        optimizer_states: float32 values that the optimizer holds for a parameter: 2 for Adam.
        sharding: the parts that the strategy divides.
        num_blocks: see `step_flop`.
        live_guide_parameters: of a guide that runs in the step.
        averaged: whether an average of the weights is held.
    """

    def divided(size: float, over_ranks: bool) -> float:
        return size / step.world_size if over_ranks else size

    tokens = min(chunk_tokens or step.local_tokens, step.local_tokens)
    row_values = step.num_columns * model.dimension
    # Flat embeddings and their gradient; gathered columns, unit columns and the loss's gradients.
    embeddings = 4.0 * row_values * (2 * step.local_rows + 3 * step.held_rows)
    tile = panel_memory(step, num_blocks) if num_blocks else 0.0
    guide_values = step.num_columns * step.guide_dimension
    weights = divided(model.parameters * model.bytes_per_value, sharding.parameters)
    if step.activation_bytes < model.bytes_per_value and not sharding.parameters:
        # The casts that all chunks share, see encoder/shared_casts.py.
        weights += (model.parameters - model.embedding_parameters) * step.activation_bytes
    if averaged:
        weights += divided(model.trainable * model.bytes_per_value, sharding.parameters)
    # DDP's buckets live on, and backwards before a step's last one add up gradients beside them.
    copies = 2 if step.world_size > 1 and sharding == Sharding() else 1
    return Memory(
        weights=weights,
        gradients=float(copies * model.trainable * model.bytes_per_value),
        optimizer=divided(4 * optimizer_states * model.trainable, sharding.optimizer),
        embeddings=embeddings + tile,
        guide=4.0 * (guide_values * (step.local_rows + 2 * step.held_rows) + live_guide_parameters),
        chunk=tokens * activation_bytes_per_token(model, step),
    )


def panel_memory(step: StepSize, num_blocks: int) -> float:
    """Bytes of a panel of losses/softmax: logits, and of one block guide scores and 16-bit weights."""
    logits = 4 * num_blocks * step.held_rows
    beside = step.held_rows * (4 * bool(step.guide_dimension) + 2 * (step.device == "cuda"))
    return min(step.local_rows, rows_within(step.device, logits)) * (logits + beside)


def step_flop(model: ModelSize, step: StepSize, *, kept_share: float, num_blocks: int) -> float:
    """Operations of this rank in one step: 2 a parameter and token forward, 4 backward.

    Args:
        model: the encoder.
        step: the batch.
        kept_share: of the tokens whose graph is kept; the others are embedded twice.
        num_blocks: blocks of scores in the loss, G x b each; 0 for losses of rows.
    """
    matrices = 2.0 * (model.parameters - model.embedding_parameters)
    attention = 4.0 * model.layers * model.width * step.text_tokens
    forward = step.local_tokens * (matrices + attention)
    scores = 2.0 * step.local_rows * step.global_rows
    loss = num_blocks * scores * (3 * model.dimension + step.guide_dimension)
    return forward * (4.0 - kept_share) + loss


def usual_chunk_tokens(device: str, width: int, *, layers: int = 1) -> int:
    """Tokens of a chunk that keep a device busy, by the width of the transformer; `layers` 0: there is none.

    A GPU's kernel should take long beside its launch. A product takes tokens * width^2, so a small model
    gets more tokens, and a large one fewer, which pad less and hold less memory. Computed, not measured: at
    32,768 tokens and a width of 768 a product of a layer is 0.04 TFLOP, some 0.1 ms of an H200.
    """
    if layers == 0:
        return STATIC_CHUNK_TOKENS
    if device == "cpu":
        return AUTO_CHUNK_TOKENS[device]
    least, most = _GPU_TOKENS
    return min(max(AUTO_CHUNK_TOKENS[device] * _WIDTH**2 // width**2, least), most)


def auto_chunk_tokens(
    model: ModelSize,
    step: StepSize,
    *,
    max_length: int,
    spare_bytes: float,
) -> int:
    """Tokens of a chunk: the device's usual number, less where memory is short; one text at least."""
    fitting = CHUNK_SHARE * spare_bytes / activation_bytes_per_token(model, step)
    usual = usual_chunk_tokens(step.device, model.width, layers=model.layers)
    return max(max_length, min(usual, int(fitting)))


def choose(
    model: ModelSize,
    step: StepSize,
    *,
    chunk_tokens: int | Literal["auto"] | None,
    keep_gib: float | Literal["auto"] | None,
    max_length: int,
    usable_bytes: float,
    num_blocks: int,
    optimizer_states: float,
    sharding: Sharding,
    live_guide_parameters: int = 0,
    averaged: bool = False,
) -> MemoryPlan:
    """Replace "auto" by numbers and estimate the step.

    Args:
        model: the encoder.
        step: the batch.
        chunk_tokens: as configured.
        keep_gib: as configured; "auto" keeps what the rest leaves of `usable_bytes`.
        max_length: tokens of the longest text.
        usable_bytes: memory that the rank may fill.
        num_blocks: blocks of scores in the loss, see `step_flop`.
        optimizer_states: see `step_memory`.
        sharding: see `step_memory`.
        live_guide_parameters: see `step_memory`.
        averaged: see `step_memory`.
    """

    def memory(tokens: int | None) -> Memory:
        return step_memory(
            model,
            step,
            chunk_tokens=tokens,
            optimizer_states=optimizer_states,
            sharding=sharding,
            num_blocks=num_blocks,
            live_guide_parameters=live_guide_parameters,
            averaged=averaged,
        )

    if chunk_tokens == "auto":
        spare = usable_bytes - memory(1).total
        chunk_tokens = auto_chunk_tokens(model, step, max_length=max_length, spare_bytes=spare)
    base = memory(chunk_tokens)
    left = round(max(0.0, usable_bytes - base.total) / GIB, 2)
    keep = left if keep_gib == "auto" else keep_gib
    graphs = step.local_tokens * activation_bytes_per_token(model, step)
    kept = graphs if keep is None else min(graphs, keep * GIB)
    # The graph that is computed is one of the kept ones, where all are kept.
    chunk = 0.0 if kept == graphs else base.chunk
    flop = step_flop(model, step, kept_share=kept / graphs, num_blocks=num_blocks)
    flop += 2.0 * live_guide_parameters * step.local_tokens
    return MemoryPlan(
        chunk_tokens=chunk_tokens,
        keep_gib=keep,
        memory=replace(base, chunk=chunk, kept=kept),
        flop=flop,
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
