"""The weights of a model, one tensor at a time: from safetensors or a checkpoint, into safetensors.

A file of safetensors is eight bytes with the length of its header, the header (JSON: type, shape and place
of each tensor), and the tensors one after another. The library writes a file only from all of its tensors at
once, so the writer here keeps to the format itself, and holds one tensor.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inbatch.encoder.st_layers import unreadable
from inbatch.encoder.st_read import MODULES_FILE
from inbatch.errors import ConfigError
from inbatch.files import replaced_file

_BYTES = {
    "64": 8,
    "32": 4,
    "16": 2,
    "F8": 1,
    "I8": 1,
    "U8": 1,
    "BO": 1,
}  # by the end or start of a code


class Entry(NamedTuple):
    """A tensor in a file.

    file: relative to the model's directory.
    code: its type as safetensors calls it, F32 say.
    """

    file: str
    code: str
    shape: tuple[int, ...]


class Key(NamedTuple):
    """A tensor of a model: the folder of its module ("" for the transformer's), and its name there."""

    folder: str
    name: str

    def __str__(self) -> str:
        """As ``2_Dense/linear.weight``."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


class Weights(Protocol):
    """The weights of a model."""

    @property
    def entries(self) -> Mapping[Key, Entry]:
        """All tensors."""

    def read(self, key: Key) -> Tensor:
        """One of them, on the CPU."""


class SavedWeights:
    """The safetensors files of a model's directory; mapped, so nothing is read before it is asked for.

    Raises:
        ConfigError: a module has weights in another format only, or a file is cut short.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def entries(self) -> dict[Key, Entry]:
        """All tensors, in the order of modules, files and places."""
        found = {}
        for number, folder in enumerate(module_folders(self._directory)):
            files = sorted((self._directory / folder).glob("*.safetensors"))
            if not files and (number == 0 or any((self._directory / folder).glob("*.bin"))):
                raise ConfigError(
                    str(self._directory / folder),
                    "holds no safetensors",
                    "load and save the model once with sentence-transformers, which writes them",
                )
            for file in files:
                with _opened(file) as opened:
                    for name in opened.keys():  # noqa: SIM118
                        tensor = opened.get_slice(name)
                        relative = str(file.relative_to(self._directory))
                        entry = Entry(relative, tensor.get_dtype(), tuple(tensor.get_shape()))
                        found[Key(folder, name)] = entry
        return found

    def read(self, key: Key) -> Tensor:
        """One of them, on the CPU."""
        with _opened(self._directory / self.entries[key].file) as opened:
            tensor: Tensor = opened.get_tensor(key.name)
            return tensor


class CheckpointWeights:
    """The weights of a checkpoint, by the names that they have in the model that its run exports.

    Args:
        path: of the checkpoint, for messages.
        state: the encoder's, mapped; names without "encoder.".
        template: the exported model, which has the weights that no run trains, such as a pooler's.

    Raises:
        ConfigError: the checkpoint lacks a weight of the model.
    """

    def __init__(self, path: Path, state: Mapping[str, Tensor], template: Path) -> None:
        self._saved = SavedWeights(template)
        folders = module_folders(template)
        prefixes = {folder: f"head.{number - 2}." for number, folder in enumerate(folders)}
        prefixes[folders[0]] = "backbone."
        self._state = {
            key: state[name]
            for key in self._saved.entries
            if (name := f"{prefixes[key.folder]}{key.name}") in state
        }
        lacking = [
            str(key)
            for key in self._saved.entries
            if key not in self._state and not key.name.startswith("pooler.")
        ]
        if lacking or len(self._state) < len(state):
            known = {f"{prefixes[key.folder]}{key.name}" for key in self._state}
            what = lacking or [name for name in state if name not in known]
            raise ConfigError(
                str(path),
                f"does not have the weights of {template} ({what[0]})",
                f"merge the run's model, {template}",
            )

    @property
    def entries(self) -> dict[Key, Entry]:
        """All tensors, as the model has them."""
        return {
            key: entry._replace(shape=tuple(self._state[key].shape))
            if key in self._state
            else entry
            for key, entry in self._saved.entries.items()
        }

    def read(self, key: Key) -> Tensor:
        """One of them, on the CPU."""
        return self._state[key] if key in self._state else self._saved.read(key)


def module_folders(directory: Path) -> list[str]:
    """The folders of a model's modules, in order; [""] of a plain transformers directory."""
    file = directory / MODULES_FILE
    if not file.is_file():
        return [""]
    modules: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return [module["path"] for module in modules]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        raise unreadable(file, error) from error


def write_safetensors(
    path: Path, entries: Mapping[str, Entry], read: Callable[[str], Tensor]
) -> None:
    """Write a file of safetensors, one tensor after another.

    Args:
        path: of the file.
        entries: by name; type and shape of each.
        read: a tensor by its name, of that type and shape.
    """
    # Wide types first, so that each tensor starts at a multiple of its size.
    ordered = sorted(entries, key=lambda name: -value_bytes(entries[name].code))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in ordered:
        start, entry = end, entries[name]
        end += value_bytes(entry.code) * _numel(entry.shape)
        header[name] = {
            "dtype": entry.code,
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replaced_file(path) as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in ordered:
            tensor, entry = read(name), entries[name]
            if (tuple(tensor.shape), tensor.element_size()) != (
                entry.shape,
                value_bytes(entry.code),
            ):
                raise ValueError(f"{name} is {tuple(tensor.shape)} of {tensor.dtype}, not {entry}")
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def value_bytes(code: str) -> int:
    """Bytes of a value of a type of safetensors: 2 of BF16."""
    size = _BYTES.get(code[-2:]) or _BYTES.get(code[:2])
    if size is None:
        raise ValueError(f"no size is known of the type {code}")
    return size


def _numel(shape: Iterable[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
