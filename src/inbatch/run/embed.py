"""A saved model and texts -> embeddings in a folder, on any number of ranks and nodes.

What is embedded stays: the same settings go on where a command was stopped or killed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inbatch.config.check import check_precision
from inbatch.config.embed_schema import EmbedConfig
from inbatch.config.instantiate import instantiate
from inbatch.console import duration, run_table
from inbatch.corpus.embed import EmbedSettings, fill_folder, forward_tokens
from inbatch.corpus.load import Corpus, load_texts
from inbatch.corpus.outputs import check_format, write_as
from inbatch.device.native_bf16 import native_bfloat16
from inbatch.encoder import Encoder
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.guide import Process
from inbatch.run.processes import held_folder, start_ranks
from inbatch.strategies import World, find_world

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def embed(run: EmbedConfig) -> Path:
    """Embed the texts of a checked configuration; returns the folder, or the one file of the embeddings.

    Raises:
        ConfigError: a model, file, folder or device that cannot be used.
    """
    ranks = run.trainer
    world = find_world(ranks.accelerator, ranks.devices, ranks.num_nodes)
    precision, reason = _precision(run.precision, world)
    corpus = load_texts(run.data.texts, run.data.columns, cache_dir=run.data.cache_dir)
    encoder: Encoder = instantiate(run.encoder, key="encoder")
    prompt = _prompt(run, encoder)
    process = start_ranks(world)
    settings = EmbedSettings(
        chunk_tokens=None if run.chunk_tokens == "auto" else run.chunk_tokens,
        compute_dtype=_DTYPES[precision],
        normalize=run.normalize,
        dtype=run.dtype,
        shard_texts=run.shard_texts,
        ranges=run.ranges,
        calibration_texts=run.calibration_texts,
    )
    with torch.autocast(world.accelerator, settings.compute_dtype, enabled=precision != "fp32"):
        encoder.check_packing(process.device)
    if process.rank == 0:
        run_table(_overview(corpus, encoder, prompt, f"{precision}{reason}", settings, world))
    folder, start_s = Path(run.output_dir), time.monotonic()
    with held_folder(folder, process):
        manifest = fill_folder(
            encoder,
            corpus.texts,
            folder,
            prompt=prompt,
            process=process,
            settings=settings,
            ids=corpus.ids,
        )
        check_format(folder, manifest, run.format)
        path = folder
        if process.rank == 0:
            path = write_as(run.format, folder, manifest)
            _say_done(manifest.num_texts, time.monotonic() - start_s, path, process)
        process.barrier()
    return path


def _precision(configured: str, world: World) -> tuple[str, str]:
    """The precision, and why `auto` stands for it."""
    if configured != "auto":
        check_precision(configured, world.accelerator)
        return configured, ""
    native, reason = native_bfloat16(world.accelerator, devices=world.devices)
    return ("bf16" if native else "fp32"), f": {reason}"


def _prompt(run: EmbedConfig, encoder: Encoder) -> str:
    if run.prompt is not None:
        return run.prompt
    return "" if run.role == "none" else encoder.prompt_for(run.role)


def _overview(
    corpus: Corpus,
    encoder: Encoder,
    prompt: str,
    precision: str,
    settings: EmbedSettings,
    world: World,
) -> Mapping[str, Mapping[str, str]]:
    texts: dict[str, Any] = {"texts": f"{len(corpus.texts):,}", "read as": corpus.read_as}
    if corpus.dropped:
        texts["left out"] = "; ".join(each.describe() for each in corpus.dropped)
    if prompt:
        texts["prompt"] = repr(prompt)
    device = torch.device(world.accelerator)
    tokens = forward_tokens(encoder, settings.chunk_tokens, device)
    values = {
        "embeddings": f"{settings.dtype} of {encoder.output_dimension} dimensions",
        "precision": precision,
        "chunks": f"{tokens:,} tokens"
        + (", without padding" if _packs(encoder, settings, world) else ""),
        "ranks": f"{world.size}",
    }
    return {
        "data": texts,
        "encoder": {"model": encoder.base_model or "random weights"},
        "embed": values,
    }


def _packs(encoder: Encoder, settings: EmbedSettings, world: World) -> bool:
    if not isinstance(encoder, TransformerEncoder):
        return False
    mixed = settings.compute_dtype != torch.float32
    with torch.autocast(world.accelerator, settings.compute_dtype, enabled=mixed):
        return encoder.packs_on(torch.device(world.accelerator))


def _say_done(num_texts: int, seconds: float, path: Path, process: Process) -> None:
    process.say(f"embed  {num_texts:,} texts in {path}, after {duration(seconds)}")
