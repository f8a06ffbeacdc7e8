"""Files with ids: texts by id, and the ids that are looked up among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec

from inbatch.data.formats.base import BadRecordError, IdRequest
from inbatch.data.formats.text_index import RepeatedIdError, TextIndex, write_index
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.errors import ConfigError


def read_lines(path: str, *, field: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, without their ends, and their numbers from 1.

    Raises:
        ConfigError: It cannot be opened, or is not UTF-8.
    """
    number = 0
    try:
        with fsspec.open(path, "rt", compression="infer", encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if text := line.rstrip("\r\n"):
                    yield number, text
    except FileNotFoundError as error:
        raise ConfigError(field, "is not there", "correct the path", value=path) from error
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (after line {number})"
        raise ConfigError(field, problem, "convert it", value=path) from error


def write_texts(
    folder: Path, path: str, parse: Callable[[str], tuple[str, str]], *, field: str
) -> TextIndex:
    """Write the texts of a file of one text a line, see `text_index`.

    Args:
        folder: Where they are written.
        path: The file.
        parse: A line as an id and a text; may raise BadRecordError.
        field: Configuration key, for messages.

    Raises:
        ConfigError: A line that cannot be used, or an id that comes twice.
    """

    def items() -> Iterator[tuple[str, str]]:
        for number, line in read_lines(path, field=field):
            try:
                yield parse(line)
            except BadRecordError as error:
                raise bad_line(error, path, number, field=field) from error

    try:
        return write_index(folder, items())
    except RepeatedIdError as error:
        problem = f"holds one id twice (texts {error.first + 1} and {error.second + 1})"
        raise ConfigError(field, problem, "keep one of them", value=path) from error


def bad_line(error: BadRecordError, path: str, number: int, *, field: str) -> ConfigError:
    """The error of a line that cannot be used."""
    return ConfigError(field, f"{error.problem} in line {number}", error.fix, value=path)


def find_file(folder: str, name: str) -> str | None:
    """A file of a folder by its name, compressed or not; None where there is none."""
    fs, _ = fsspec.core.url_to_fs(folder)
    places = (f"{folder.rstrip('/')}/{name}{end}" for end in ("", ".gz"))
    return next((place for place in places if fs.isfile(place)), None)


def required_file(request: IdRequest, name: str) -> str:
    """A file of the folder that a source names; a name that is a path of its own is taken as it is.

    Raises:
        ConfigError: There is none.
    """
    folder = request.paths[0]
    found = find_file(folder, name) or _itself(name)
    if found is None:
        fs, _ = fsspec.core.url_to_fs(folder)
        inner = f"{folder.rstrip('/')}/{name}".rpartition("/")[0]
        there = sorted(
            place.rpartition("/")[2].partition(".")[0] for place in fs.glob(f"{inner}/*")
        )
        fix = "add it"
        if name.startswith("qrels/") and there:
            fix = f"set {to_set(request.field, f'split={there[0]}')} (of {', '.join(there)}), or add it"
        raise ConfigError(path_key(request.field), f"has no {name}", fix, value=folder)
    return found


def _itself(path: str) -> str | None:
    fs, place = fsspec.core.url_to_fs(path)
    return path if fs.isfile(place) else None
