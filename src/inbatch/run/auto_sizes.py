"""From the parts of a run to the planner's numbers, and back: `auto` sizes become values.

Devices are taken to be alike and free: each rank plans alone, before its device is set up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from inbatch.config.check import RunConfig, rows_per_rank
from inbatch.data.collate import tokenize_columns
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.guide import Guide, LiveGuide
from inbatch.losses.base import Loss
from inbatch.run.memory_plan import (
    AUTO_CHUNK_TOKENS,
    USABLE,
    MemoryPlan,
    ModelSize,
    Sharding,
    StepSize,
    choose,
)
from inbatch.strategies import FSDP, DeepSpeed, Strategy, World, cores_per_rank

SAMPLED_ROWS = 128  # of each source, for the mean length of its texts
# float32 values that an optimizer holds for a parameter; Adafactor's rows and columns are few.
OPTIMIZER_STATES = {"adamw": 2, "adam": 2, "rmsprop": 1, "adagrad": 1, "sgd": 0, "adafactor": 0}


def plan_run(
    run: RunConfig,
    world: World,
    sources: Sequence[Source],
    encoder: Encoder,
    losses: Mapping[str, Loss],
    guide: Guide | None,
    strategy: Strategy,
) -> tuple[RunConfig, MemoryPlan]:
    """The configuration with numbers in place of "auto", and the estimate of its largest step."""
    cache = run.gradcache
    sizes = batch_sizes(run, sources)
    tokens = {source.name: tokens_per_row(source, encoder) for source in sources}
    source = max(sources, key=lambda each: sizes[each.name] * tokens[each.name])
    text_tokens = tokens[source.name] / len(source.columns)
    device: Literal["cpu", "cuda"] = "cuda" if world.accelerator == "cuda" else "cpu"
    chunk_tokens: Any = cache.chunk_tokens
    by_size = chunk_tokens is None and cache.chunk_size is not None
    if chunk_tokens is None and cache.chunk_size is not None:
        chunk_tokens = int(cache.chunk_size * text_tokens)
    loss = losses[source.name]
    plan = choose(
        model_size(encoder),
        StepSize(
            device=device,
            global_rows=sizes[source.name],
            local_rows=rows_per_rank(sizes[source.name], world.size),
            held_rows=_held_rows(run, world, sizes[source.name]),
            num_columns=len(source.columns),
            text_tokens=text_tokens,
            guide_dimension=guide.dimension if guide is not None and loss.needs_guide else 0,
            world_size=world.size,
            activation_bytes={"fp32": 4, "tf32": 4, "fp64": 8}.get(run.precision, 2),
        ),
        chunk_tokens=chunk_tokens,
        keep_gib=cache.keep_gib,  # type: ignore[arg-type]
        max_length=encoder.tokenizer.max_length,
        usable_bytes=USABLE[device] * available_bytes(device) / ranks_per_memory(world),
        num_blocks=len(source.columns) + 1 if loss.scope == "candidates" else 0,
        optimizer_states=optimizer_states(run.optimizer, strategy),
        sharding=sharding_of(strategy),
        live_guide_parameters=count(guide.encoder) if isinstance(guide, LiveGuide) else 0,
    )
    chosen = None if by_size else plan.chunk_tokens
    cache = replace(cache, chunk_tokens=chosen, keep_gib=plan.keep_gib)
    return replace(run, gradcache=cache), plan


def _held_rows(run: RunConfig, world: World, global_rows: int) -> int:
    """Rows whose embeddings a rank holds at a time: in a ring its own, visitors, and the next ones."""
    local_rows = rows_per_rank(global_rows, world.size)
    held = {"global": global_rows, "ring": 3 * local_rows, "local": local_rows}[run.gather]
    return min(held, global_rows)


def batch_sizes(run: RunConfig, sources: Sequence[Source]) -> dict[str, int]:
    """Rows of a global batch, by source."""
    own = run.sampler.get("batch_sizes") or {}
    return {source.name: own.get(source.name, run.global_batch_size) for source in sources}


def guide_chunk_tokens(run: RunConfig, world: World, tokenizer: TextTokenizer) -> int:
    """Computed tokens of one forward of the guide, enough for its longest text."""
    if isinstance(run.guide.chunk_tokens, int):
        return run.guide.chunk_tokens
    return max(AUTO_CHUNK_TOKENS[world.accelerator], tokenizer.max_length)


def num_workers(run: RunConfig, world: World) -> int:
    """Processes of a rank that read ahead. On a CPU they would take the cores that compute."""
    if isinstance(run.data.loader.num_workers, int):
        return run.data.loader.num_workers
    return min(4, max(1, cores_per_rank(world) - 1)) if world.accelerator == "cuda" else 0


def tokens_per_row(source: Source, encoder: Encoder) -> float:
    """Mean tokens of a row, all columns together, over rows spread over the source."""
    number = min(SAMPLED_ROWS, source.num_near_rows)
    rows = np.linspace(0, source.num_near_rows - 1, number).astype(np.int64)
    prompts = source.column_prompts(encoder.role_prompts)
    token_ids, _ = tokenize_columns(source.read(rows)[0], prompts, tokenizer=encoder.tokenizer)
    return sum(map(len, token_ids)) / number


def model_size(encoder: Encoder) -> ModelSize:
    """An encoder in numbers; what its configuration does not state is taken from BERT's proportions."""
    config = encoder.backbone.config
    width = int(config.hidden_size)
    tables = [m for m in encoder.modules() if isinstance(m, nn.Embedding)]
    return ModelSize(
        parameters=count(encoder),
        trainable=sum(p.numel() for p in encoder.parameters() if p.requires_grad),
        embedding_parameters=sum(count(table) for table in tables),
        layers=int(config.num_hidden_layers),
        width=width,
        intermediate=int(getattr(config, "intermediate_size", None) or 4 * width),
        heads=int(config.num_attention_heads),
        dimension=encoder.dimension,
        bytes_per_value=next(encoder.parameters()).element_size(),
        dropout=any(isinstance(m, nn.Dropout) and m.p > 0 for m in encoder.modules()),
    )


def count(module: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def optimizer_states(node: Mapping[str, Any], strategy: Strategy) -> float:
    """Values per parameter in the device's memory, two for an optimizer that is not known."""
    if isinstance(strategy, DeepSpeed) and strategy.offload_optimizer:
        return 0.0
    name = str(node["_target_"]).rpartition(".")[2].lower()
    momentum = name == "sgd" and node.get("momentum", 0)
    return float(OPTIMIZER_STATES.get(name, 2) + bool(momentum))


def sharding_of(strategy: Strategy) -> Sharding:
    """What a strategy divides over ranks. Gradients are whole until they are reduced, under all of them."""
    if isinstance(strategy, FSDP):
        return Sharding(parameters=True, optimizer=True)
    if isinstance(strategy, DeepSpeed):
        return Sharding(parameters=strategy.stage == 3, optimizer=True)
    return Sharding()


def ranks_per_memory(world: World) -> int:
    """Ranks that share a memory: those of a node on a CPU, one on a GPU."""
    return world.devices if world.accelerator == "cpu" else 1


def available_bytes(device: Literal["cpu", "cuda"]) -> float:
    """Memory of a GPU, or what the machine and the process's group of processes leave free."""
    if device == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory)
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, float(limit.read_text()) - float(used.read_text()))
    return free
