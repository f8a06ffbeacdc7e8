"""Tables of embeddings: what is added is found, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from inbatch.errors import ConfigError
from inbatch.guide import store
from inbatch.guide.store import Table

D = 5


def _keys(num: int, seed: int = 0) -> np.ndarray:
    keys = np.random.default_rng(seed).integers(0, 1 << 64, num, dtype=np.uint64)
    assert (keys > 1 << 63).any()  # keys are unsigned: signed order would be another
    return keys


def _rows(keys: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """A row that tells its key."""
    return ((keys % np.uint64(1009))[:, None] + np.arange(D, dtype=np.uint64)).astype(dtype)


@pytest.mark.parametrize("num_shards", [1, 2, 7])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_come_back_by_key(tmp_path: Path, num_shards: int, dtype: str) -> None:
    table, keys = Table(tmp_path / "table", D, dtype), _keys(500)
    for part in np.array_split(keys, num_shards):
        table.add(part, _rows(part, dtype))
    opened = table.open()
    assert len(opened) == 500
    asked = np.random.default_rng(1).choice(keys, 300)  # repeated, in any order
    out = np.zeros((300, D), dtype=dtype)
    assert opened.take(asked, out).all()
    np.testing.assert_array_equal(out, _rows(asked, dtype))
    assert opened.take(asked[:0], out[:0]).shape == (0,)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    table, keys = Table(tmp_path, D, "float32"), _keys(50)
    assert not table.open().contains(keys).any()
    assert len(table.open()) == 0
    table.add(keys[:20], _rows(keys[:20]))
    table.add(keys[20:40], _rows(keys[20:40]))
    wanted = np.arange(50) < 40
    np.testing.assert_array_equal(table.open().contains(keys), wanted)
    np.testing.assert_array_equal(table.open().take(keys, np.empty((50, D), np.float32)), wanted)
    ends = np.array([0, (1 << 64) - 1], dtype=np.uint64)
    assert not table.open().contains(ends).any()
    order = np.argsort(keys)
    np.testing.assert_array_equal(table.present(keys[order], table.shards()), wanted[order])


def test_a_key_in_two_shards_is_found(tmp_path: Path) -> None:
    table, keys = Table(tmp_path, D, "float32"), _keys(20)
    table.add(keys, _rows(keys))
    table.add(keys[::-1], _rows(keys[::-1]))
    out = np.empty((20, D), np.float32)
    assert table.open().take(keys, out).all()
    np.testing.assert_array_equal(out, _rows(keys))


def test_an_index_is_built_once_per_set_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, keys = Table(tmp_path, D, "float32"), _keys(20)
    table.add(keys[:10], _rows(keys[:10]))
    table.open()
    monkeypatch.setattr(store, "_write_folder", lambda *_: pytest.fail("built again"))
    table.open()
    monkeypatch.undo()
    table.add(keys[10:], _rows(keys[10:]))
    assert table.open().contains(keys).all()
    assert len(list(tmp_path.glob("index-*"))) == 2


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, keys = Table(tmp_path, D, "float32"), _keys(20)

    def full(fd: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        table.add(keys, _rows(keys))
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    keys = _keys(3)
    rows = torch.full((3, D), 7e4)
    with pytest.raises(ConfigError, match="set float32"):
        Table(tmp_path, D, "float16").add(keys, rows.half().numpy())
    Table(tmp_path / "wide", D, "float32").add(keys, rows.numpy())
    with pytest.raises(ConfigError, match="not finite"):
        Table(tmp_path, D, "float32").add(keys, rows.numpy() * np.nan)


@pytest.mark.parametrize("size", [0, 60, 300])
def test_a_damaged_shard_is_named(tmp_path: Path, size: int) -> None:
    table, keys = Table(tmp_path, D, "float32"), _keys(20)
    name = table.add(keys, _rows(keys))
    with (tmp_path / name / "rows.npy").open("r+b") as file:
        file.truncate(size)
    with pytest.raises(ConfigError, match=f"{name}' is damaged: delete it"):
        table.open()
    other = tmp_path / "other"
    Table(other, D + 1, "float32").add(keys, np.zeros((20, D + 1), np.float32))
    with pytest.raises(ConfigError, match="damaged"):
        Table(other, D, "float32").open()
