"""Files and folders are whole or not there, also when a process is killed or several write at once."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from inbatch.errors import ConfigError
from inbatch.files import (
    fresh_folder,
    new_folder,
    put_in_place,
    remove,
    remove_abandoned,
    replaced_file,
    replaced_folder,
    write_csv,
    write_json,
    write_text,
    writing,
)


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _in_process(work: Callable[..., None], *args: Any) -> int | None:
    process = get_context("fork").Process(target=work, args=args)
    process.start()
    process.join(60)
    return process.exitcode


def test_small_files_are_written_whole_and_their_folder_is_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "über\n")
    write_json(tmp_path / "a" / "c.json", {"name": "über"})
    write_csv(tmp_path / "a" / "d.csv", ["x", "y"], [[1, None], ["é", 2]])
    assert (tmp_path / "a" / "b.txt").read_bytes() == "über\n".encode()
    assert json.loads((tmp_path / "a" / "c.json").read_text()) == {"name": "über"}
    assert (tmp_path / "a" / "d.csv").read_bytes() == "x,y\r\n1,\r\né,2\r\n".encode()
    assert _left(tmp_path / "a") == ["b.txt", "c.json", "d.csv"]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(TypeError), replaced_file(path) as file:
        file.writelines([b"half of the new", "no bytes"])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert _left(tmp_path) == ["file"]


def _write_and_die(path: Path) -> None:
    with replaced_file(path) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    assert _in_process(_write_and_die, path) == -signal.SIGKILL
    assert path.read_text() == "old"
    (beside,) = [name for name in _left(tmp_path) if name != "file"]
    assert re.fullmatch(r"\.file\.\w+\.new", beside)


def _write_often(path: Path, letter: str) -> None:
    for _ in range(30):
        write_text(path, letter * 100_000)


def test_one_of_several_writers_wins(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "a" * 100_000)
    writers = [get_context("fork").Process(target=_write_often, args=(path, x)) for x in "abc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        text = path.read_text()
        assert text == text[0] * 100_000
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert _left(tmp_path) == ["file"]


def test_a_folder_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_text(folder / "old", "old")
    with replaced_folder(folder) as fresh:
        write_text(fresh / "below" / "new", "new")
        assert _left(folder) == ["old"]
    assert _left(folder) == ["below"]
    with pytest.raises(TypeError), replaced_folder(folder) as fresh:
        write_json(fresh / "newer", object())
    assert _left(folder) == ["below"]
    assert _left(tmp_path) == ["folder"]


def _fill_and_die(folder: Path) -> None:
    with replaced_folder(folder) as fresh:
        (fresh / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_text(folder / "old", "old")
    assert _in_process(_fill_and_die, folder) == -signal.SIGKILL
    assert _left(folder) == ["old"]


def test_the_old_folder_comes_back_where_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "folder", Path.rename
    folder.mkdir()
    write_text(folder / "old", "old")

    def failing(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"), replaced_folder(folder) as fresh:
        write_text(fresh / "new", "new")
    assert _left(folder) == ["old"]
    assert _left(tmp_path) == ["folder"]


def test_the_first_writer_of_a_new_folder_wins(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with new_folder(folder) as fresh:
        write_text(fresh / "name", "second")
        with new_folder(folder) as faster:
            write_text(faster / "name", "first")
    assert (folder / "name").read_text() == "first"
    assert _left(tmp_path) == ["folder"]


def test_a_new_folder_is_refused_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    write_text(tmp_path / "folder", "a file")
    with pytest.raises(NotADirectoryError), new_folder(tmp_path / "folder") as fresh:
        write_text(fresh / "name", "content")
    assert (tmp_path / "folder").read_text() == "a file"
    assert _left(tmp_path) == ["folder"]


def test_what_a_killed_writer_left_goes_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    left, other = tmp_path / ".model.0123456789ab.new", tmp_path / ".models.0123456789ab.new"
    for folder in (left, other):
        folder.mkdir()
        (folder / "weights").write_bytes(b"half")
    with fresh_folder(tmp_path / "model") as running:
        remove_abandoned(tmp_path / "model")
        assert running.exists()
        assert not left.exists()
        assert other.exists()  # of another path


def test_files_and_folders_are_put_in_place_and_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "fresh", "new")
    write_text(tmp_path / "target", "old")
    put_in_place(tmp_path / "fresh", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"
    write_text(tmp_path / "folder" / "name", "content")
    for name in ("target", "folder", "missing"):
        remove(tmp_path / name)
    assert _left(tmp_path) == []


def test_bytes_reach_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "file", "content")
    assert done == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space there"),
        (errno.EDQUOT, "free space of your quota there"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "make it writable"),
        (errno.EFBIG, "raise the limit on the size of files (ulimit -f)"),
    ],
)
def test_what_lies_outside_of_the_program_is_one_sentence(
    tmp_path: Path, number: int, remedy: str
) -> None:
    path = tmp_path / "a"
    for write in (replaced_file, replaced_folder, new_folder, writing):
        with pytest.raises(ConfigError) as error, write(path):  # type: ignore[operator]
            raise OSError(number, "as the system says it")
        fix = f"{remedy}, then the same command goes on"
        assert str(error.value) == f"{path} cannot be written ({os.strerror(number)}): {fix}"
    assert _left(tmp_path) == []


def test_a_library_that_hides_a_full_disk_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="file write failed"), writing(tmp_path / "a"):
        raise RuntimeError("file write failed")
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: full)
    with pytest.raises(ConfigError, match="No space left"), writing(tmp_path / "none" / "a"):
        raise RuntimeError("file write failed")


def test_a_missing_file_is_not_one_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replaced_file(tmp_path / "a"):
        (tmp_path / "none").read_text()
