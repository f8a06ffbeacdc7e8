"""Describes the inputs of a plan as named parts, which a resumed run compares.

Every text, key, label and score counts: arrays are digested whole, in blocks, so memory stays flat. xxh3 goes
through 200 million hashes in about 0.1 s where they are in memory, else as fast as they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import xxhash

from inbatch.data.plan.plan import Sampler, SourceInfo
from inbatch.errors import ConfigError

_ORDER_VERSION = 2  # counts changes of the code that give other batches for the same inputs
_BLOCK = 1 << 18  # numbers digested at a time
_CONTENT = "content"


def plan_fingerprint(
    sources: Sequence[SourceInfo],
    sampler: Sampler,
    *,
    global_batch_size: int,
    seed: int,
    drop_last: bool = True,
) -> dict[str, Any]:
    """Describe everything that a plan and its labels depend on, as named parts ready for JSON.

    ``content`` digests the hashes of all texts of each source, the lengths of lists, its keys, its
    labels and the scores of its documents.
    """
    lists = {source.name: dict(source.lists) for source in sources if source.lists is not None}
    parts = {
        "order_version": _ORDER_VERSION,
        "sources": [source.name for source in sources],
        "num_rows": {source.name: source.num_rows for source in sources},
        _CONTENT: {source.name: _content(source) for source in sources},
        "streamed": {
            source.name: [len(source.stream.file_rows), source.stream.buffer_files]
            for source in sources
            if source.stream is not None
        },
        "sampler": _describe(sampler),
        "global_batch_size": global_batch_size,
        "seed": seed,
        "drop_last": drop_last,
    }
    return parts | {"lists": lists} if lists else parts


def check_same_plan(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Compare two fingerprints.

    Raises:
        ConfigError: They differ; the message names the first part that does.
    """
    for part in dict.fromkeys([*current, *saved]):
        old, new = saved.get(part), current.get(part)
        if old == new:
            continue
        what, change = _name(part, old, new)
        raise ConfigError(
            what,
            f"{change} when the checkpoint was saved, so the run would not continue as it began",
            f"restore {what}, or start a new run from the weights",
        )


def digest(array: np.ndarray) -> str:
    """64 bits of all numbers of an array, which may be memory-mapped, in their order; hexadecimal."""
    hasher = xxhash.xxh3_64(f"{array.dtype.str}{array.shape}".encode())
    for row in np.atleast_2d(array):
        for start in range(0, len(row), _BLOCK):
            hasher.update(np.ascontiguousarray(row[start : start + _BLOCK]).data)
    return hasher.hexdigest()


def _content(source: SourceInfo) -> dict[str, str]:
    found: dict[str, np.ndarray] = {}
    if source.hashes is not None:
        found["texts"] = source.hashes()
    if source.ragged is not None and source.conflicts is not None:
        texts = source.ragged()
        found |= {"texts": texts.values, "lists": texts.offsets}
        found["positives"] = source.conflicts().offsets
    for name, array in (
        ("keys", source.keys),
        ("labels", source.labels),
        ("scores", source.scores),
    ):
        if array is not None:
            found[name] = array()
    return {name: digest(array) for name, array in found.items()}


def _name(part: str, old: Any, new: Any) -> tuple[str, str]:
    """The narrowest part that differs, and how it differs."""
    if part == _CONTENT and isinstance(old, Mapping) and isinstance(new, Mapping):
        source = _first_difference(old, new)
        kinds_old, kinds_new = old.get(source), new.get(source)
        if isinstance(kinds_old, Mapping) and isinstance(kinds_new, Mapping):
            kind = _first_difference(kinds_old, kinds_new)
            return f"the {kind} of source '{source}'", "are not what they were"
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        key = _first_difference(old, new)
        return _name(f"{part}.{key}", old.get(key), new.get(key))
    return part, f"is {new} and was {old}"


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return next(key for key in dict.fromkeys([*new, *old]) if old.get(key) != new.get(key))


def _describe(value: Any) -> Any:
    """A sampler as plain values: the class and its fields, nested."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _describe(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, **parts}
    if isinstance(value, Mapping):
        return {str(key): _describe(item) for key, item in value.items()}
    return value
