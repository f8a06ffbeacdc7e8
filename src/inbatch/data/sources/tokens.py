"""Token ids that were computed once. Shape letters: C text columns, n rows of a shard, B rows of a batch.

A shard holds two arrays: the ids of all its texts, one after the other, and where each text begins.
Both are memory-mapped, so a batch reads only its texts. `describe_tokens` describes the tokenizer, lengths
and prompts behind them, and `check_tokens` refuses to train an encoder on the ids of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from inbatch.errors import ConfigError

IDS, STARTS = "token_ids.npy", "token_starts.npy"


def describe_tokens(
    *, tokenizer: str, vocab_size: int, max_length: int, prompts: Sequence[str]
) -> dict[str, Any]:
    """Describe everything that stored ids depend on, as JSON-able values.

    Args:
        tokenizer: hash of the tokenizer.
        vocab_size: decides the type that holds an id.
        max_length: tokens that a text keeps.
        prompts: in front of the texts of each column [C].
    """
    return {
        "tokenizer": tokenizer,
        "max_length": max_length,
        "prompts": list(prompts),
        "dtype": "uint16" if vocab_size <= 1 << 16 else "uint32",
    }


def check_tokens(stored: Mapping[str, Any], wanted: Mapping[str, Any], *, field: str) -> None:
    """Compare two descriptions.

    Raises:
        ConfigError: they differ; the message names the first part that does.
    """
    for part in ("tokenizer", "max_length", "prompts"):
        if stored[part] != wanted[part]:
            raise ConfigError(
                field,
                f"holds tokens made with {part}={stored[part]!r}, but the encoder has "
                f"{part}={wanted[part]!r}",
                "prepare the data again with this encoder, or without tokens",
            )


def write_tokens(folder: Path, token_ids: Sequence[Sequence[np.ndarray]], *, dtype: str) -> None:
    """Store the ids of the texts of one shard, by column and row."""
    lengths = [[len(ids) for ids in column] for column in token_ids]
    starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64).reshape(-1))])
    flat = [ids for column in token_ids for ids in column]
    np.save(folder / IDS, np.concatenate(flat).astype(dtype, copy=False))
    np.save(folder / STARTS, starts)


@final
class TokenStore:
    """Token ids of all texts of a source.

    Args:
        shards: folders of the shards, in order.
        shard_starts: row number at which each shard begins, int64.
        num_columns: C; 1 for rows with lists, each of whose texts counts as a row here.
        description: from `describe_tokens`.
        prompt_lengths: leading tokens of each column's texts that belong to its prompt [C].
    """

    def __init__(
        self,
        shards: Sequence[Path],
        shard_starts: np.ndarray,
        *,
        num_columns: int,
        description: Mapping[str, Any],
        prompt_lengths: Sequence[int],
    ) -> None:
        self.description = dict(description)
        self.prompt_lengths = list(prompt_lengths)
        self._shards = list(shards)
        self._shard_starts = shard_starts
        self._num_columns = num_columns
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def read(self, rows: np.ndarray) -> list[list[np.ndarray]]:
        """Ids of the texts of some rows [B], by column and row."""
        shards_B = np.searchsorted(self._shard_starts, rows, side="right") - 1
        inside_B = rows - self._shard_starts[shards_B]
        columns: list[list[np.ndarray]] = [[] for _ in range(self._num_columns)]
        for shard, inside in zip(shards_B.tolist(), inside_B.tolist()):
            ids, starts_Cn = self._arrays(shard)
            for texts, starts_n in zip(columns, starts_Cn):
                texts.append(ids[starts_n[inside] : starts_n[inside + 1]])
        return columns

    def _arrays(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids, and starts [C, n + 1] of which the last is the next column's first."""
        if shard not in self._open:
            ids, starts = (
                # A plain array over the map: subclasses of ndarray cost time at each indexing.
                np.asarray(np.load(self._shards[shard] / name, mmap_mode="r"))
                for name in (IDS, STARTS)
            )
            num_rows = (len(starts) - 1) // self._num_columns
            first = np.arange(self._num_columns)[:, None] * num_rows
            self._open[shard] = ids, starts[first + np.arange(num_rows + 1)]
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps: a DataLoader worker opens the files again."""
        return self.__dict__ | {"_open": {}}
