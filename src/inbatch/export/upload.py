"""The files of a model that are published: all of them of known kinds, none with a secret in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inbatch.errors import ConfigError
from inbatch.export.redaction import holds_secret

# Read as text, and searched.
_TEXTS = (".json", ".md", ".txt", ".jinja", ".py", ".yaml", ".yml", "")
# Weights, vocabularies and the card's images. Pickles are not among them: whoever loads one runs code.
_OTHERS = (".safetensors", ".onnx", ".onnx_data", ".model", ".png", ".svg")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to publish.

    name: its path in the repository.
    path: on this machine.
    num_bytes: its size.
    """

    name: str
    path: Path
    num_bytes: int


def uploads(directory: Path) -> list[Upload]:
    """The files of a model's directory in order; hidden ones stay where they are.

    Raises:
        ConfigError: a file of an unknown kind, one that lies elsewhere, or one that holds a secret.
    """
    return [_checked(directory, path) for path in _visible(directory)]


def _visible(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden:
            yield path


def _checked(directory: Path, path: Path) -> Upload:
    name = path.relative_to(directory).as_posix()
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ConfigError(
            str(path),
            "is a link to a file outside of the model",
            "copy that file, or remove the link",
        )
    if path.suffix not in (*_TEXTS, *_OTHERS):
        raise ConfigError(
            str(path),
            "is of no kind that belongs to a model",
            "move it out of the model's directory",
        )
    if path.suffix in _TEXTS:
        _check_text(path)
    return Upload(name, path, path.stat().st_size)


def _check_text(path: Path) -> None:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if holds_secret(line):
                raise ConfigError(
                    str(path),
                    f"holds what looks like an access token or a password in line {number}",
                    "remove it there, and revoke it where it was made",
                )
