"""Folders that `inbatch prepare` has written. Shape letters: C text columns, N rows.

::

    DIR/manifest.json                   the names of the sources
    DIR/NAME/manifest.json              rows, roles, prompts, shards, tokenizer of the tokens
    DIR/NAME/shard-00000/rows.arrow     texts, label, key and scores
    DIR/NAME/shard-00000/token_*.npy    token ids, where they were asked for
    DIR/NAME/text_hashes.npy ...        arrays over all rows

A manifest is written last, by a rename: a folder without one is not finished. Everything is
memory-mapped, so that start-up reads no text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from inbatch.data.sources.columns import MAPPING_KEYS, Roles, find_roles
from inbatch.data.sources.config_keys import columns_key, path_key
from inbatch.data.sources.dropped import Dropped, Intake, from_json, intake_from_json
from inbatch.data.sources.tokens import TokenStore
from inbatch.errors import ConfigError

FORMAT = 2
MANIFEST = "manifest.json"
ROWS = "rows.arrow"
TEXT_HASHES, KEY_HASHES, TEXT_LENGTHS = "text_hashes", "key_hashes", "text_lengths"
# Of rows with lists, whose hashes and lengths are flat, see lists.py.
TEXT_OFFSETS, POSITIVE_COUNTS = "text_offsets", "positive_counts"
CONFLICT_HASHES, CONFLICT_OFFSETS = "conflict_hashes", "conflict_offsets"
DOCUMENT_SCORES = "document_scores"  # where rows have scores, see scores.py


@dataclass(frozen=True)
class Prepared:
    """One source of a prepared folder."""

    folder: Path
    manifest: Mapping[str, Any]
    field: str

    @property
    def roles(self) -> Roles:
        """The part each column plays."""
        roles = self.manifest["roles"]
        several = {key: tuple(value) for key, value in roles.items() if isinstance(value, list)}
        return Roles(**{**roles, **several})

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out of the raw data, by reason."""
        return from_json(self.manifest["dropped"])

    @property
    def intake(self) -> Intake | None:
        """What was read of the raw data, where a format made the rows of something else."""
        return intake_from_json(self.manifest.get("intake"))

    @property
    def num_dropped_texts(self) -> int:
        """Texts of the raw data that were left out of the lists of other rows."""
        return int(self.manifest.get("num_dropped_texts", 0))

    @property
    def num_single_texts(self) -> int:
        """Texts of the raw data that were read as lists of one."""
        return int(self.manifest.get("num_single_texts", 0))

    @property
    def shards(self) -> list[Path]:
        """Folders of the shards, in order."""
        return [self.folder / shard["name"] for shard in self.manifest["shards"]]

    def array(self, name: str) -> np.ndarray:
        """An array over all rows [..., N], memory-mapped; of rows with lists see ragged_arrays.py."""
        array: np.ndarray = self._checked(np.load, self.folder / f"{name}.npy", mmap_mode="r")
        if array.shape[-1] != self._length(name):
            raise self._damaged()
        return array

    def _length(self, name: str) -> int:
        """Entries of an array: one for each row, or, of rows with lists, what its offsets say."""
        num_rows = int(self.manifest["num_rows"])
        if name in (TEXT_OFFSETS, CONFLICT_OFFSETS):
            return num_rows + 1
        if name == CONFLICT_HASHES:
            return int(self.array(CONFLICT_OFFSETS)[-1])
        if self.roles.lists and name in (TEXT_HASHES, TEXT_LENGTHS, DOCUMENT_SCORES):
            queries = num_rows if name == DOCUMENT_SCORES else 0
            return int(self.array(TEXT_OFFSETS)[-1]) - queries
        return num_rows

    def dataset(self) -> datasets.Dataset:
        """The rows, memory-mapped."""
        parts = [
            self._checked(datasets.Dataset.from_file, str(shard / ROWS)) for shard in self.shards
        ]
        if [part.num_rows for part in parts] != [s["num_rows"] for s in self.manifest["shards"]]:
            raise self._damaged()
        return datasets.concatenate_datasets(parts)

    @cached_property
    def tokens(self) -> TokenStore | None:
        """The stored token ids."""
        if self.manifest["tokens"] is None:
            return None
        counts = [shard["num_rows"] for shard in self.manifest["shards"]]
        starts, num_columns = np.cumsum([0, *counts[:-1]]), len(self.roles.texts)
        if self.roles.lists:  # all texts of a row stand one behind another, as one column
            starts, num_columns = self.array(TEXT_OFFSETS)[starts], 1
        return TokenStore(
            self.shards,
            starts,
            num_columns=num_columns,
            description=self.manifest["tokens"],
            prompt_lengths=self.manifest["prompt_lengths"],
        )

    def _checked(self, read: Any, path: Any, **options: Any) -> Any:
        try:
            return read(path, **options)
        except (OSError, ValueError, EOFError, pa.ArrowInvalid) as error:
            raise self._damaged() from error

    def _damaged(self) -> ConfigError:
        return ConfigError(
            path_key(self.field),
            "is damaged",
            "delete it and prepare the data again",
            value=str(self.folder),
        )


def expand_prepared(sources: Mapping[str, Any]) -> dict[str, Any]:
    """Replace each prepared folder of several sources by its sources, under their names there.

    Args:
        sources: source by name, as in `data.train`; the other ones stay as they are.

    Raises:
        ConfigError: two sources get one name.
    """
    expanded: dict[str, Any] = {}
    for name, value in sources.items():
        keys = dict(value) if isinstance(value, Mapping) else {"path": value}
        manifest = _read(keys.get("path"))
        found = {name: value}
        if manifest is not None and "sources" in manifest:
            folder = _local(keys["path"])
            found = {each: {**keys, "path": str(folder / each)} for each in manifest["sources"]}
        for each, spec in found.items():
            if each in expanded:
                raise ConfigError(
                    f"data.train.{name}",
                    f"holds a source '{each}', and another source has that name",
                    "name the folders of its sources one by one",
                    value=keys["path"],
                )
            expanded[each] = spec
    return expanded


def open_prepared(
    path: str | Sequence[str] | None,
    *,
    mapping: Mapping[str, object] | None,
    on_empty: str,
    on_bad_row: str,
    raw: Mapping[str, object],
    field: str,
) -> Prepared | None:
    """The prepared source at a path; None where the path is anything else.

    Args:
        path: Of its folder.
        mapping: See `columns.find_roles`.
        on_empty: As in the configuration; likewise `on_bad_row`.
        raw: Other keys of the configuration that say how raw data are read.
        field: Configuration key of the source, for messages.

    Raises:
        ConfigError: it was written in another format or has no scores yet, or columns or rows are asked for
            that it does not have.
    """
    manifest = _read(path)
    if manifest is None:
        return None
    if manifest["format"] != FORMAT:
        raise ConfigError(
            path_key(field),
            f"has format {manifest['format']}, but this version reads {FORMAT}",
            "prepare the data again",
            value=path,
        )
    if "sources" in manifest:
        raise ConfigError(
            path_key(field),
            f"holds the sources {', '.join(manifest['sources'])}",
            f"name one of them, as {path}/{manifest['sources'][0]}",
            value=path,
        )
    prepared = Prepared(_local(path), manifest, field)
    stored_roles = prepared.roles
    if stored_roles.scores and not (prepared.folder / f"{DOCUMENT_SCORES}.npy").exists():
        raise ConfigError(
            path_key(field),
            "has columns of scores, and was prepared before scores were stored",
            "delete it and prepare the data again",
            value=path,
        )
    stored = {role: name for role, name in manifest["roles"].items() if role in MAPPING_KEYS}
    wanted = find_roles(stored_roles.used, mapping={**stored, **(mapping or {})}, field=field)
    if wanted.used != stored_roles.used:
        raise ConfigError(
            columns_key(field),
            f"asks for {list(wanted.used)}, but {path} was prepared with {list(stored_roles.used)}",
            "prepare the data again, or remove the columns",
        )
    for key, value in raw.items():
        raise ConfigError(
            f"{field}.{key}",
            f"takes effect when data are prepared, and {path} is prepared already",
            "prepare the data again, or remove it",
            value=value,
        )
    for key, choice in (("on_bad_row", on_bad_row), ("on_empty", on_empty)):
        if choice == "drop" and manifest[key] != "drop":
            raise ConfigError(
                f"{field}.{key}",
                f"takes effect when data are prepared, and {path} was prepared with {key}=error",
                "prepare the data again, or remove it",
                value="drop",
            )
    return prepared


def _local(path: object) -> Path:
    """A path, also of a local URL."""
    return Path(str(path).removeprefix("file://"))


def _read(path: object) -> dict[str, Any] | None:
    """The manifest of a folder; None where the path is not a prepared folder."""
    if not isinstance(path, str) or not (_local(path) / MANIFEST).is_file():
        return None
    try:
        manifest = json.loads((_local(path) / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        return None
    ours = (
        isinstance(manifest, dict) and "format" in manifest and {"sources", "roles"} & {*manifest}
    )
    return manifest if ours else None
