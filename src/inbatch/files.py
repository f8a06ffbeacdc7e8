"""Writes files and folders that other processes see whole or not at all.

Content is written beside its target, under ``.NAME.<random>.new``, flushed to the disk, and then moved
into place by one rename. So a process that is killed leaves the old content, a power cut cannot leave a
name without its bytes, and any number of processes may write while others read.

A disk that is full or read-only is not a defect: it ends in a `ConfigError`, which names the file.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import glob
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from inbatch.errors import ConfigError

UNFINISHED = ".new"  # ends the names of files and folders that are being written
_REMEDIES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space of your quota there",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}
_FULL_BYTES = 2**16  # of a disk on which the last block could not be written


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around everything that writes a file or a folder.

    Raises:
        ConfigError: it cannot be written, for a reason that lies outside of the program.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # torch, safetensors and others raise errors of their own where a write has failed.
        number = number or (errno.ENOSPC if _is_full(path) else None)
        if number not in _REMEDIES:
            raise
        problem = f"cannot be written ({os.strerror(number)})"
        fix = f"{_REMEDIES[number]}, then the same command goes on"
        raise ConfigError(str(path), problem, fix) from error


def _is_full(path: Path) -> bool:
    there = next((folder for folder in path.absolute().parents if folder.exists()), Path.cwd())
    return shutil.disk_usage(there).free < _FULL_BYTES


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; missing folders above it are made."""
    with replaced_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; missing folders above it are made."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; missing folders above it are made."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with a header; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


@contextmanager
def replaced_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path` when the block ends without an error.

    ``file.name`` is the temporary path, for libraries that open files themselves.
    """
    fresh = _beside(path, UNFINISHED)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        _sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `path`, an older folder or nothing, when the block ends.

    The files in it are flushed to the disk once, at the end.
    """
    with fresh_folder(path) as fresh, writing(path):
        yield fresh
        put_in_place(fresh, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends, unless `path` holds files by then.

    For content that is the same whoever writes it: the first of several processes wins, and the others
    discard what they wrote.
    """
    with fresh_folder(path) as fresh, writing(path):
        yield fresh
        sync_tree(fresh)
        try:
            fresh.rename(path)  # fails where a folder with files is in the way
        except OSError:
            if not path.is_dir():
                raise
        _sync_folder(path.parent)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, of those that name this lock file, which stays.

    For work that others then find done. Where the file system has no locks, all enter at once.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        yield


def put_in_place(fresh: Path, path: Path) -> None:
    """Flush a file or folder to the disk and move it to `path`, in place of an older file or folder.

    `fresh` must be on the same file system. An older folder is moved aside until the new one is there.
    """
    sync_tree(fresh)
    if path.is_dir():
        old = _beside(path, ".old")
        path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            old.rename(path)
            raise
        remove(old)
    else:
        os.replace(fresh, path)
    _sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder, into which nobody else may write."""
    for path in folder.glob(f".*{UNFINISHED}") if folder.is_dir() else ():
        remove(path)


def remove_abandoned(path: Path) -> None:
    """Remove the folders beside `path` that writers of it were killed over, and not those of running ones.

    A running one holds a lock on its folder; where the file system has no locks, nothing is removed.
    """
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, which the block moves away; what is left of it is removed.

    It is locked meanwhile, see `remove_abandoned`.
    """
    fresh = _beside(path, UNFINISHED)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield fresh
    finally:
        os.close(descriptor)
        shutil.rmtree(fresh, ignore_errors=True)  # moved away by now, unless something failed


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{suffix}")


def sync_tree(path: Path) -> None:
    """Flush a file, or all files below a folder, to the disk."""
    if not path.is_dir():
        _sync(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            _sync(Path(folder, name))
        _sync_folder(Path(folder))


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # not every file system can flush a folder
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
