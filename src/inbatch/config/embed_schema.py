"""Every key that conf/embed.yaml may hold, its type and its default; see schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from inbatch.config.schema import Auto, Keys, Positive


@dataclass
class EmbedDataConfig(Keys):
    """conf/embed.yaml, `data`: the texts.

    texts: files (csv, tsv, jsonl, parquet, arrow, or txt with a text in each line), or the keys of a source
        (path or hub, subset, split, revision, limit, csv, on_bad_row, on_empty).
    columns: text, a column or a template such as "{title} {text}", and id, a column or null for none; those
        that are not named are recognised by their names.
    cache_dir: folder for files that are converted once, null for that of `datasets`.
    """

    texts: Any = MISSING
    columns: dict[str, Any] = field(default_factory=dict)
    cache_dir: str | None = None


@dataclass
class RanksConfig(Keys):
    """conf/embed.yaml, `trainer`: the processes, under the keys of a training run.

    accelerator: cpu, cuda, or auto for a GPU where there is one; gpu is another name of cuda.
    devices: processes on this machine, one per device, or "auto" for all devices.
    num_nodes: machines.
    """

    accelerator: Literal["auto", "cpu", "cuda", "gpu"] = "auto"
    devices: int | str = "auto"
    num_nodes: Positive = 1


@dataclass
class EmbedConfig(Keys):
    """conf/embed.yaml: texts to embeddings in a folder.

    role: whose prompt stands in front of each text: query, document or the name of a prompt; none for no
        prompt, null for the model's default.
    prompt: in place of that of the role.
    normalize: scale embeddings to length one, after `encoder.truncate_dim` has cut them.
    dtype: of the stored values; int8 and uint8 divide the range of each dimension into 256 steps, binary and
        ubinary keep signs, 8 in a byte.
    ranges: of int8 and uint8, a folder of embeddings or a .npy file, so that queries get those of their
        corpus; null takes those of `calibration_texts`.
    calibration_texts: evenly spaced texts whose embeddings give the ranges.
    format: store (parts that are memory-mapped), npy (one file) or parquet (columns id and embedding).
    precision: auto (bf16 where the device computes it natively, else fp32), fp32, bf16, fp16 (autocast).
    chunk_tokens: computed tokens of one forward, at least encoder.max_length; or "auto".
    shard_texts: texts of a shard, what a killed run may lose; null for about 256 shards of 2,048 to 65,536.
    output_dir: folder for the embeddings; seen by all nodes.
    """

    data: EmbedDataConfig = field(default_factory=EmbedDataConfig)
    encoder: Any = None
    role: str | None = None
    prompt: str | None = None
    normalize: bool = False
    dtype: Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"] = "float32"
    ranges: str | None = None
    calibration_texts: Positive = 10_000
    format: Literal["store", "npy", "parquet"] = "store"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    chunk_tokens: Positive | Auto = "auto"
    shard_texts: Positive | None = None
    trainer: RanksConfig = field(default_factory=RanksConfig)
    output_dir: str = "outputs/embeddings"
