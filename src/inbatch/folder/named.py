"""What a user names -> the directory of a model: a model's own, or that of a run."""

from __future__ import annotations

from pathlib import Path

from inbatch.encoder.adapter_files import ADAPTER_CONFIG
from inbatch.encoder.resolve import resolve_directory
from inbatch.encoder.st_read import MODULES_FILE
from inbatch.errors import ConfigError
from inbatch.folder.paths import RunFolder


def is_model(path: Path) -> bool:
    """Tell whether a folder holds a model of sentence-transformers or transformers."""
    return (path / MODULES_FILE).is_file() or (path / "config.json").is_file()


def find_model(name: str, *, field: str = "MODEL_OR_RUN") -> Path:
    """The directory of a model.

    Args:
        name: a model's directory, a run's folder, ``pkg://package/directory`` or a hub name.
        field: what the user calls it, for errors.

    Raises:
        ConfigError: there is no model.
    """
    path = Path(name).expanduser()
    if is_model(RunFolder(path).model):
        return RunFolder(path).model
    if path.is_dir() and not is_model(path) and not (path / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            field,
            "holds neither a model nor a run that has written one",
            "give a model's directory, or the output_dir of a run after its first evaluation or its end",
            value=name,
        )
    return resolve_directory(name, field=field)
