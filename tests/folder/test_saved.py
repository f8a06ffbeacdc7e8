"""Which checkpoints of a folder are whole, and which is the newest."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inbatch.folder.saved import (
    checkpoints_in,
    name_of_step,
    newest_whole,
    problem_of,
    read_manifest,
    write_manifest,
)


def _file(folder: Path, step: int) -> Path:
    path = folder / name_of_step(step)
    torch.save({"weight": torch.randn(500), "step": step}, path)
    return path


def _shards(folder: Path, step: int) -> Path:
    path = folder / name_of_step(step)
    (path / "checkpoint").mkdir(parents=True)
    for rank in range(2):
        torch.save({"weight": torch.randn(500)}, path / "checkpoint" / f"rank_{rank}.pt")
    (path / "latest").write_text("checkpoint")
    write_manifest(path, {"step": step})
    return path


def _flip(path: Path) -> None:
    """Change one byte of the weights."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(path.read_bytes())
    content[entry.header_offset + 300] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: os.truncate(path, 0), "is empty"),
        (lambda path: os.truncate(path, 700), "is cut off, or no checkpoint"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "is cut off"),
        (lambda path: path.write_bytes(os.urandom(3000)), "is cut off, or no checkpoint"),
        (_flip, "is damaged (in "),
    ],
)
def test_a_broken_file(tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    before, path = _file(tmp_path, 4), _file(tmp_path, 8)
    assert newest_whole(tmp_path) == (path, [])
    harm(path)
    newest = newest_whole(tmp_path)
    assert newest.path == before
    assert str(newest.broken[0]).startswith(f"step-00000008.ckpt {said}")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: (path / "latest").unlink(), "lacks latest"),
        (lambda path: (path / "checkpoint" / "rank_1.pt").unlink(), "lacks checkpoint/rank_1.pt"),
        (lambda path: os.truncate(path / "latest", 2), "has another latest than was written"),
        (lambda path: _flip(path / "checkpoint" / "rank_0.pt"), "has a file, checkpoint/rank_0.pt"),
    ],
)
def test_a_broken_folder(tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    path = _shards(tmp_path, 8)
    assert problem_of(path) is None
    assert read_manifest(path)["record"] == {"step": 8}
    harm(path)
    assert str(newest_whole(tmp_path).broken[0]).startswith(f"step-00000008.ckpt {said}")


def test_the_order_is_that_of_steps(tmp_path: Path) -> None:
    paths = [_file(tmp_path, step) for step in (10, 2, 9)]
    (tmp_path / "last.ckpt").symlink_to(paths[1].name)
    (tmp_path / ".step-00000011.ckpt.new").write_bytes(b"half")
    assert [path.name for path in checkpoints_in(tmp_path)] == [name_of_step(n) for n in (10, 9, 2)]


@pytest.mark.parametrize("name", [".step-00000012.ckpt.0a1b.old", "last.ckpt", ".last.ckpt.0a.old"])
def test_one_under_another_name_is_found(tmp_path: Path, name: str) -> None:
    _shards(tmp_path, 8)
    moved = _shards(tmp_path, 12).rename(tmp_path / name)
    assert newest_whole(tmp_path).path == moved


def test_a_folder_without_any(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) == (None, [])
    assert newest_whole(tmp_path / "absent") == (None, [])
