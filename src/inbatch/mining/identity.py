"""The mining that a folder belongs to: what its blocks and rows follow from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash

from inbatch.config.mine import MineConfig
from inbatch.corpus.store import StoredEmbeddings
from inbatch.data.hashing import hash_json
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError, in_yaml
from inbatch.files import write_json
from inbatch.guide.fingerprint import describe_guide, fingerprint
from inbatch.mining.training_set import Keys, TrainingSet

SETTINGS = "mine.json"
BLOCKS = "blocks"
INDEX = "index.faiss"
ROWS = "mined-*"


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Take a folder for a mining, or go on with it.

    Args:
        folder: of the results.
        settings: from `settings_of`.

    Raises:
        ConfigError: it holds another mining, or results of which nothing tells what they follow from.
    """
    path = folder / SETTINGS
    new = json.loads(json.dumps(settings))
    try:
        old = json.loads(path.read_text())
    except FileNotFoundError:
        _check_without_settings(folder)
        write_json(path, new)
        return
    except ValueError:
        old = None
    if not isinstance(old, dict):
        raise ConfigError(str(path), "is damaged", "delete the folder, or set another output_dir")
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            raise ConfigError(
                "output_dir",
                f"holds another mining ({key} was {in_yaml(old.get(key))} and is {in_yaml(new.get(key))})",
                "set another output_dir, or the old value to go on with that one",
                value=str(folder),
            )


def _check_without_settings(folder: Path) -> None:
    held = [*sorted(folder.glob(ROWS)), *folder.glob(f"{BLOCKS}/*"), *folder.glob(INDEX)]
    if held:
        raise ConfigError(
            "output_dir",
            f"holds {held[0].relative_to(folder)} and no {SETTINGS} that says what it follows from",
            "set another output_dir, or delete this one",
            value=str(folder),
        )


def settings_of(
    run: MineConfig,
    training: TrainingSet,
    encoder: Encoder,
    guide: Encoder | None,
    *,
    chunk_tokens: Mapping[str, int],
    stored: StoredEmbeddings | None,
) -> dict[str, Any]:
    """What the results follow from, by dotted key as a user writes it where it is a user's.

    Args:
        run: the configuration.
        training: whose texts and keys are hashed.
        encoder, guide: whose weights, tokenizers and layers are hashed, beside how they are used.
        chunk_tokens: of a forward of each, on which the last bits of a score depend.
        stored: embeddings of the corpus that are not computed here.
    """
    return {
        **{f"mine.{key}": value for key, value in asdict(run.mine).items() if key != "corpus"},
        "guide.model": run.guide.model,
        "seed": run.seed,
        "precision": run.precision,
        "chunk_tokens": dict(chunk_tokens),
        "data.train": hash_json([source.fingerprint for source in training.sources]),
        "mine.corpus": xxhash.xxh3_128_hexdigest(training.documents.hashes.tobytes()),
        "mine.corpus_columns.key": _hash_keys(training.keys),
        **_of_model(encoder, "encoder"),
        **({} if guide is None else _of_model(guide, "guide")),
        "embeddings of mine.corpus_embeddings": (
            None if stored is None else hash_json(asdict(stored.manifest))
        ),
    }


def _of_model(encoder: Encoder, field: str) -> dict[str, Any]:
    return {
        f"{field}.similarity": encoder.similarity,
        f"{field}.truncate_dim": encoder.output_dimension,
        **{f"{field}.prompts.{role}": encoder.prompt_for(role) for role in ("query", "document")},
        f"weights of {field}": fingerprint(
            describe_guide(encoder, store_dtype="", compute_dtype="")
        ),
    }


def _hash_keys(keys: Keys | None) -> str | None:
    if keys is None:
        return None
    hasher = xxhash.xxh3_128()
    for each in (keys.of_queries, keys.of_documents):
        hasher.update(each.values.tobytes())
        hasher.update(each.offsets.tobytes())
    return hasher.hexdigest()
