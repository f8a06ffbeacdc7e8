"""Seconds of one step by part, from counts of operations and bytes. Numbers in, numbers out.

Shape letters: G global rows, b local rows, C columns, D dimension, W ranks, P parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from inbatch.forecast.rates import Kind, Rates, sent_bytes
from inbatch.run.memory_plan import MemoryPlan, Sharding, activation_bytes_per_token, step_flop
from inbatch.run.step_size import ModelSize, StepSize

Gather = Literal["global", "ring"]

# Passes over values beside matrix products, in units of what autograd holds of a token: norms, activations,
# dropout and residuals read and write each about once forward, and twice as often backward.
_FORWARD_PASSES, _BACKWARD_PASSES = 1.2, 2.4
_SCORE_PASSES = 6  # over a score: logit, mask, exponential, and one for each of three products
# A GPU's passes wait for its memory. A CPU's are arithmetic (exponentials, random numbers), the same in bf16:
# of float32 products that take as long, measured with one thread of x86 (AVX-512) on MiniLM.
_CPU_PASS_FLOP = 340
_OPTIMIZER_BYTES = (
    40  # of a parameter: gradient, weight and two states, read and written; its norm; zeros
)
_CAST_BYTES = 6  # of a weight that is read in float32 and written in 16 bit
_LAUNCH_S = 5e-6  # of a kernel on the host
_KERNELS = 75  # of a layer in both passes of a chunk
# CPU time of Python and of calls for a layer in the three passes of a chunk: of two and six layers so small
# that nothing else counts.
_CPU_LAYER_S = 8e-3
# CPU time of a rank for a unit of sharded parameters to be gathered and freed once, beside its bytes; of fsdp
# over gloo, with layers so small that nothing else counts.
_UNIT_S = 2.5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """What a strategy divides over ranks, and how the rest travels.

    sharding: see `step_memory`.
    reduces: the collective of the gradients.
    gathers_chunks: whether each pass of each chunk gathers the parameters.
    gathers_step: whether parameters are gathered once after the update.
    """

    sharding: Sharding = Sharding()
    reduces: Kind = "reduce_scatter"
    gathers_chunks: bool = False
    gathers_step: bool = False

    def units(self, layers: int, precision: str) -> int:
        """Parts of the encoder that are gathered apart: layers, in 16 bits their two norms, and the rest."""
        return (3 if precision in ("bf16", "fp16") else 1) * layers + 1


STRATEGIES = {
    "ddp": Strategy(reduces="all_reduce"),
    "fsdp": Strategy(sharding=Sharding(parameters=True, optimizer=True), gathers_chunks=True),
    "deepspeed_stage_2": Strategy(sharding=Sharding(optimizer=True), gathers_step=True),
    "deepspeed_stage_3": Strategy(
        sharding=Sharding(parameters=True, optimizer=True), gathers_chunks=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of a step by part; of communication, what no computation hides."""

    embed: float  # forward and backward of the encoder
    loss: float
    optimizer: float
    gather: float  # embeddings, their gradients, the guide's
    gradients: float  # their reduction
    parameters: float  # gathered from shards
    sent_bytes: float  # by each rank

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Seconds by name."""
        names = (field.name for field in fields(self) if field.name != "sent_bytes")
        return {name: getattr(self, name) for name in names}


def step_time(
    model: ModelSize,
    step: StepSize,
    plan: MemoryPlan,
    rates: Rates,
    *,
    strategy: Strategy,
    gather: Gather,
    num_blocks: int,
    precision: str,
) -> StepTime:
    """Estimate a step.

    Args:
        model, step, plan: see `memory_plan`.
        rates: of a rank.
        strategy: of `STRATEGIES`.
        gather: global, or ring.
        num_blocks: see `step_flop`.
        precision: fp32, tf32 or bf16.
    """
    world, hides = step.world_size, step.device == "cuda"
    chunks = math.ceil(step.local_tokens / (plan.chunk_tokens or step.local_tokens))
    kept = _kept_share(model, step, plan)
    embed = _embed_seconds(model, step, rates, chunks=chunks, kept_share=kept, precision=precision)
    loss = _loss_seconds(model, step, rates, gather=gather, blocks=num_blocks, precision=precision)
    parameters, trainable = 4.0 * model.parameters, 4.0 * model.trainable
    owned = trainable / world if strategy.sharding.optimizer else trainable
    travel, moved = _gather_seconds(model, step, rates, gather=gather)
    passes = (3.0 - kept) * chunks * strategy.gathers_chunks if world > 1 else 0.0
    gathers = passes + strategy.gathers_step
    gradients = rates.seconds(strategy.reduces, trainable, world)
    gathered = gathers * rates.seconds("all_gather", parameters, world)
    copied = (
        2 * (1 + 1 / world) * parameters
    )  # into the buffer that travels and out, read and written
    copying = passes * copied / rates.memory_bytes_per_s
    if rates.device == "cpu":
        copying += passes * strategy.units(model.layers, precision) * _UNIT_S
    if gather == "ring" and hides:  # a hop travels while the one before is computed
        travel = max(0.0, travel - loss)
    if hides:  # buckets leave during the last chunk's backward, shards come during the layer before
        gradients = max(0.0, gradients - embed / chunks / 2)
        gathered = max(0.0, gathered - embed)
    return StepTime(
        embed=embed,
        loss=loss,
        optimizer=owned / 4 * _OPTIMIZER_BYTES / rates.memory_bytes_per_s,
        gather=travel,
        gradients=gradients,
        parameters=gathered + copying,
        sent_bytes=moved
        + sent_bytes(strategy.reduces, trainable, world)
        + gathers * sent_bytes("all_gather", parameters, world),
    )


def _kept_share(model: ModelSize, step: StepSize, plan: MemoryPlan) -> float:
    graphs = step.local_tokens * activation_bytes_per_token(model, step)
    return min(1.0, plan.memory.kept / graphs)


def _embed_seconds(
    model: ModelSize,
    step: StepSize,
    rates: Rates,
    *,
    chunks: int,
    kept_share: float,
    precision: str,
) -> float:
    flop = step_flop(model, step, kept_share=kept_share, num_blocks=0)
    held = step.local_tokens * activation_bytes_per_token(model, step) / step.activation_bytes
    passes = held * (_FORWARD_PASSES * (2.0 - kept_share) + _BACKWARD_PASSES)
    seconds = flop / product_rate(rates, precision)
    seconds += _pass_seconds(passes, step.activation_bytes, rates)
    if precision == "bf16":
        weights = model.parameters - model.embedding_parameters
        seconds += chunks * (3.0 - kept_share) * weights * _CAST_BYTES / rates.memory_bytes_per_s
    if step.device == "cpu":
        return seconds + chunks * (3.0 - kept_share) / 3 * model.layers * _CPU_LAYER_S
    return max(seconds, chunks * model.layers * _KERNELS * _LAUNCH_S)


def _loss_seconds(
    model: ModelSize, step: StepSize, rates: Rates, *, gather: Gather, blocks: int, precision: str
) -> float:
    """Products and passes over the scores; a ring fills them twice."""
    scores = float(step.local_rows) * step.global_rows * blocks
    looks = 2 if gather == "ring" else 1
    flop = scores * 2 * ((2 + looks) * model.dimension + looks * step.guide_dimension)
    passes = scores * _SCORE_PASSES * (1 + looks) / 2
    exact = "tf32" if precision == "tf32" else "fp32"
    return flop / product_rate(rates, exact) + _pass_seconds(passes, 4, rates)


def _pass_seconds(values: float, bytes_per_value: int, rates: Rates) -> float:
    """Time to read and write values, or on a CPU to compute them."""
    if rates.device == "cpu":
        return values * _CPU_PASS_FLOP / rates.matmul_flops["float32"]
    return values * bytes_per_value / rates.memory_bytes_per_s


def _gather_seconds(
    model: ModelSize, step: StepSize, rates: Rates, *, gather: Gather
) -> tuple[float, float]:
    """Seconds, and bytes that a rank sends, to see the embeddings of all ranks and return their gradients."""
    world = step.world_size
    columns = 4.0 * step.global_rows * step.num_columns * model.dimension
    guide = 4.0 * step.global_rows * step.num_columns * step.guide_dimension
    if gather == "global":
        seconds = rates.seconds("all_gather", columns, world)
        seconds += rates.seconds("reduce_scatter", columns, world)
        hidden = step.device == "cuda"  # the guide's rows travel while the texts are embedded
        seconds += 0.0 if hidden else rates.seconds("all_gather", guide, world)
        sent = sent_bytes("all_gather", 2 * columns + guide, world)
        return seconds, sent
    forward, back = (columns + guide) / world, columns / world
    seconds = 2 * (world - 1) * rates.hop_seconds(forward, world)
    seconds += world * rates.hop_seconds(back, world)
    return seconds, (2 * (world - 1) * forward + world * back) if world > 1 else 0.0


def product_rate(rates: Rates, precision: str) -> float:
    """Operations a second of products under a precision, or in float32 where the device has no other rate."""
    name = {"bf16": "bfloat16", "fp16": "bfloat16", "tf32": "tf32"}.get(precision, "float32")
    return rates.matmul_flops.get(name, rates.matmul_flops["float32"])
