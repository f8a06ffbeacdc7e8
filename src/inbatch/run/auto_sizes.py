"""Replaces `auto` sizes by numbers: the parts of a run in the numbers of `memory_plan`, and its answer.

Each rank plans by the free memory of its own device, before ranks have met. `RunRecord` then gives all ranks
the sizes of the one with the least.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from inbatch.config.check import RunConfig, rows_per_rank
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import GradcacheConfig
from inbatch.console import make_console, print_plain
from inbatch.data.sources.load import Source
from inbatch.data.tokenized import tokenize_columns
from inbatch.device.memory import free_bytes
from inbatch.encoder import Encoder
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.guide import LiveGuide
from inbatch.run.memory_plan import USABLE, MemoryPlan, Sharding, choose, usual_chunk_tokens
from inbatch.run.parts import Parts
from inbatch.run.step_size import ModelSize, StepSize
from inbatch.strategies import Strategy, World, cores_per_rank, is_first_process, own_device

SAMPLED_ROWS = 128  # of each source, for the mean length of its texts
UNKNOWN_STATES = 2.0  # of an optimizer that cannot take a step on a CPU; Adam holds as many


def plan_memory(
    run: RunConfig, world: World, parts: Parts, *, saved_tokens: int | None = None
) -> MemoryPlan:
    """The sizes of a step, with numbers in place of "auto", and an estimate of its largest step.

    Args:
        run, world, parts: what is to run.
        saved_tokens: tokens of a chunk that a checkpoint has resolved "auto" to; they hold where they fit.
    """
    plan = _plan(run, world, parts)
    chosen = plan.chunk_tokens
    if run.gradcache.chunk_tokens != "auto" or saved_tokens is None or chosen is None:
        return plan
    if chosen < saved_tokens:
        if is_first_process():
            print_plain(
                f"resume  chunks of {chosen} tokens, where {saved_tokens} do not fit the free memory any "
                "more: dropout draws other values from here on",
                console=make_console(),
            )
        return plan
    cache = replace(run.gradcache, chunk_tokens=saved_tokens)
    return _plan(replace(run, gradcache=cache), world, parts)


def _plan(run: RunConfig, world: World, parts: Parts) -> MemoryPlan:
    cache, sources, encoder, guide = run.gradcache, parts.sources, parts.encoder, parts.guide
    sizes = parts.batch_sizes
    tokens = {source.name: tokens_per_row(source, encoder) for source in sources}
    source = max(sources, key=lambda each: sizes[each.name] * tokens[each.name])
    rows, loss = sizes[source.name], parts.losses[source.name]
    num_texts = texts_per_row(source)
    text_tokens = tokens[source.name] / num_texts
    device: Literal["cpu", "cuda"] = "cuda" if world.accelerator == "cuda" else "cpu"
    chunk_tokens: Any = cache.chunk_tokens
    if chunk_tokens is None and cache.chunk_size is not None:
        chunk_tokens = int(cache.chunk_size * text_tokens)
    return choose(
        model_size(encoder),
        StepSize(
            device=device,
            global_rows=rows,
            local_rows=rows_per_rank(rows, world.size),
            held_rows=_held_rows(rows, gather=run.gather, world_size=world.size),
            num_columns=num_texts,
            text_tokens=text_tokens,
            guide_dimension=guide.dimension if guide is not None and loss.needs_guide else 0,
            world_size=world.size,
            activation_bytes={"fp32": 4, "tf32": 4, "fp64": 8}.get(run.precision, 2),
        ),
        chunk_tokens=chunk_tokens,
        keep_gib=cache.keep_gib,
        max_length=encoder.tokenizer.max_length,
        usable_bytes=USABLE[device] * free_bytes(own_device(world)) / ranks_per_memory(world),
        num_blocks=math.ceil(num_texts) + 1 if loss.scope == "candidates" else 0,
        optimizer_states=optimizer_states(instantiate(run.optimizer), parts.strategy),
        sharding=sharding_of(parts.strategy),
        live_guide_parameters=count(guide.encoder) if isinstance(guide, LiveGuide) else 0,
        averaged=run.ema.decay is not None,
    )


def with_sizes(cache: GradcacheConfig, plan: MemoryPlan) -> GradcacheConfig:
    """The configuration of the gradient cache with the planned numbers in it."""
    by_size = cache.chunk_tokens is None and cache.chunk_size is not None
    return replace(
        cache, chunk_tokens=None if by_size else plan.chunk_tokens, keep_gib=plan.keep_gib
    )


def _held_rows(global_rows: int, *, gather: str, world_size: int) -> int:
    """Rows whose embeddings a rank holds at a time; in a ring its own, visiting ones, and the next ones."""
    local_rows = rows_per_rank(global_rows, world_size)
    held = {"global": global_rows, "ring": 3 * local_rows, "local": local_rows}[gather]
    return min(held, global_rows)


def guide_chunk_tokens(configured: int | str, guide: Encoder, accelerator: str) -> int:
    """Computed tokens of one forward of the guide; "auto" leaves room for its longest text."""
    if isinstance(configured, int):
        return configured
    size = model_size(guide)
    usual = usual_chunk_tokens(accelerator, size.width, layers=size.layers)
    return max(usual, guide.tokenizer.max_length)


def num_workers(configured: int | str, world: World) -> int:
    """Processes of a rank that read ahead. On a CPU, "auto" leaves all cores to the computation."""
    if isinstance(configured, int):
        return configured
    return min(4, max(1, cores_per_rank(world) - 1)) if world.accelerator == "cuda" else 0


def texts_per_row(source: Source) -> float:
    """Mean texts that a row brings into a batch."""
    ragged = source.ragged
    if ragged is None:
        return len(source.columns)
    return 1 + float(ragged.document_counts(sampled_rows(source)).mean())


def tokens_per_row(source: Source, encoder: Encoder) -> float:
    """Mean tokens of a row, all texts together, over rows spread over the source."""
    rows = sampled_rows(source)
    prompts = source.column_prompts(encoder.role_prompts)
    ragged = source.ragged
    if ragged is None:
        token_ids, _ = tokenize_columns(source.read(rows)[0], prompts, tokenizer=encoder.tokenizer)
        return sum(map(len, token_ids)) / len(rows)
    found = ragged.read(rows)
    of_query, of_documents = (
        sum(map(len, tokenize_columns([texts], [prompt], tokenizer=encoder.tokenizer)[0]))
        / len(texts)
        for texts, prompt in zip((found.queries, found.documents), prompts)
    )
    return of_query + of_documents * (texts_per_row(source) - 1)


def sampled_rows(source: Source, most: int = SAMPLED_ROWS) -> np.ndarray:
    """Numbers of rows spread over a source, its first and last one among them, int64."""
    number = min(most, source.num_near_rows)
    return np.linspace(0, source.num_near_rows - 1, number).astype(np.int64)


def model_size(encoder: Encoder) -> ModelSize:
    """An encoder in numbers; what its configuration does not state is taken from BERT's proportions."""
    config = encoder.backbone.config if isinstance(encoder, TransformerEncoder) else None
    width = encoder.width if config is None else int(config.hidden_size)
    tables = [m for m in encoder.modules() if isinstance(m, nn.Embedding)]
    return ModelSize(
        parameters=count(encoder),
        trainable=sum(p.numel() for p in encoder.parameters() if p.requires_grad),
        embedding_parameters=sum(count(table) for table in tables),
        layers=0 if config is None else int(config.num_hidden_layers),
        width=width,
        intermediate=int(getattr(config, "intermediate_size", None) or 4 * width),
        heads=0 if config is None else int(config.num_attention_heads),
        dimension=encoder.dimension,
        bytes_per_value=next(encoder.parameters()).element_size(),
        dropout=any(isinstance(m, nn.Dropout) and m.p > 0 for m in encoder.modules()),
    )


def count(module: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def optimizer_states(make: Callable[..., Optimizer], strategy: Strategy) -> float:
    """Values per parameter that an optimizer holds in the device's memory: 2 for Adam.

    Counted after one step on a small matrix, so that any optimizer is right. Adafactor's row and column
    statistics round to 0, as they should: they are few in matrices of a model's size.

    Args:
        make: takes parameter groups.
        strategy: may hold the state elsewhere.
    """
    if strategy.offloads_optimizer:
        return 0.0
    matrix = nn.Parameter(torch.ones(64, 64))
    matrix.grad = torch.ones_like(matrix)
    try:
        optimizer = make([{"params": [matrix]}])
        optimizer.step()
    except (RuntimeError, TypeError, ValueError, ImportError, NotImplementedError):
        return UNKNOWN_STATES
    held = [value for value in optimizer.state[matrix].values() if isinstance(value, torch.Tensor)]
    return float(round(sum(value.numel() for value in held) / matrix.numel()))


def sharding_of(strategy: Strategy) -> Sharding:
    """The parts of the memory that a strategy divides over ranks.

    Gradients are whole until they are reduced, under all of them.
    """
    return Sharding(parameters=strategy.shards_parameters, optimizer=strategy.shards_optimizer)


def ranks_per_memory(world: World) -> int:
    """Ranks that share a memory: those of a node on a CPU, one on a GPU."""
    return world.devices if world.accelerator == "cpu" else 1
