"""What the embeddings in a folder follow from, and the refusal of a folder of something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from inbatch.corpus.store import IDS, MANIFEST, RANGES, Manifest, read_manifest
from inbatch.corpus.texts import Texts, hash_of
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.guide.base import Process
from inbatch.guide.fingerprint import describe_guide, fingerprint

_OWN = ("part-*.npy", "ids-*.arrow", RANGES, IDS, "embeddings.npy", "embeddings.parquet")


def describe(
    encoder: Encoder,
    texts: Texts,
    ids: Texts | None,
    *,
    prompt: str,
    precision: str,
    chunk_tokens: int,
    ranges: str,
) -> dict[str, Any]:
    """All that stored values follow from beside their form, as JSON-able values.

    Args:
        encoder: its weights, tokenizer and layers are hashed; the name of its model is for people.
        texts, ids: hashed.
        prompt: in front of each text.
        precision: of the computation.
        chunk_tokens: of a forward, on which the last bits of a value depend.
        ranges: where the ranges of int8 values come from, "" for other types.
    """
    return {
        "model": encoder.base_model or "",
        "encoder": _hash_encoder(encoder),
        "prompt": prompt,
        "texts": hash_of(texts),
        "ids": "" if ids is None else hash_of(ids),
        "precision": precision,
        "chunk_tokens": chunk_tokens,
        "ranges": ranges,
    }


def begin(folder: Path, manifest: Manifest) -> Manifest:
    """Take a folder for embeddings; returns the manifest that it has from now on.

    Where the one file of all embeddings is gone, the folder lacks all parts again.

    Raises:
        ConfigError: it holds embeddings of something else, or such of which nothing tells what they are.
    """
    held = read_manifest(folder)
    if held is None:
        foreign = sorted(path for kind in _OWN for path in folder.glob(kind))
        if foreign:
            problem = f"holds {foreign[0].name} and no {MANIFEST} that says what it is"
            fix = "name another folder, or delete this one"
            raise ConfigError(str(folder), problem, fix)
        manifest.write(folder)
        return manifest
    difference = _difference(held, manifest)
    if difference:
        fix = "name another folder, or delete this one"
        raise ConfigError(str(folder), f"holds embeddings {difference}", fix)
    files = [held.file, *([IDS] if held.has_ids and held.file.endswith(".npy") else [])]
    if held.file and not all((folder / name).is_file() for name in files):
        held = replace(held, file="")
        held.write(folder)
    return held


def check_rank(encoder: Encoder, folder: Path, manifest: Manifest, process: Process) -> None:
    """Refuse a rank whose model is not that of rank 0, as where nodes have other files.

    Raises:
        ConfigError: it is not.
    """
    if process.rank and manifest.made_from.get("encoder") != _hash_encoder(encoder):
        raise ConfigError(
            str(folder),
            f"is of another model than that of rank {process.rank}",
            "give all nodes the same files, and a saved model",
        )


def _hash_encoder(encoder: Encoder) -> str:
    return fingerprint(describe_guide(encoder, store_dtype="", compute_dtype=""))


def _difference(held: Manifest, new: Manifest) -> str:
    """What those in a folder were made from, where it is not what is asked for; empty where it is."""
    was, now = held.made_from, new.made_from
    words = {
        "encoder": f"of another model ({was.get('model') or 'without a name'})",
        "prompt": f"of texts behind the prompt {was.get('prompt')!r}, not {now['prompt']!r}",
        "texts": f"of other texts ({held.num_texts:,}, now {new.num_texts:,})",
        "ids": "of texts with other ids",
        "precision": f"computed in {was.get('precision')}, not {now['precision']}",
        "chunk_tokens": f"made with chunk_tokens={was.get('chunk_tokens')}, not {now['chunk_tokens']}",
        "ranges": f"in other ranges ({was.get('ranges')}, not {now['ranges']})",
    }
    for key, text in words.items():
        if was.get(key) != now[key]:
            return text
    if held.form != new.form:
        return f"as {held.form.describe()}, not {new.form.describe()}"
    if held.shard_texts != new.shard_texts:
        return f"in parts of {held.shard_texts:,} texts, not {new.shard_texts:,}"
    return ""
