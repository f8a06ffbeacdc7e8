"""Find the local directory of a model from its name.

Three kinds of names: a directory; ``pkg://package/sub/dir``, a directory inside an installed Python
package; and a name on the Hugging Face hub, which is fetched into the hub's cache (or found there
when offline). All later steps work on a directory, so that all three load alike.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download

from inbatch.errors import ConfigError

_PACKAGE = "pkg://"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TEXT_FILES = ["*.json", "*.txt", "*.model", "*.py", "*.jinja"]
_OTHER_BACKENDS = ["onnx/*", "openvino/*"]


def resolve_directory(
    name: str, *, field: str = "model", revision: str | None = None, weights: bool = True
) -> Path:
    """Find the local directory of a model, and download a hub model where needed.

    Args:
        name: a directory, ``pkg://package/sub/dir`` or a hub name.
        field: the key that `name` is the value of, for errors.
        revision: branch, tag or commit of a hub name.
        weights: fetch a hub model's weights too.

    Raises:
        ConfigError: there is no such directory, package or reachable hub model.
    """
    if name.startswith(_PACKAGE):
        return _package_directory(name, field=field)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(
            field,
            "is not a directory",
            f"give one, a hub name or {_PACKAGE}package/directory",
            value=name,
        )
    patterns = [*_TEXT_FILES, "*.safetensors"] if weights else _TEXT_FILES
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, ignore_patterns=_OTHER_BACKENDS
            )
        )
    except (OSError, ValueError) as error:
        cause = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(
            field,
            "is neither a directory nor a hub model that can be fetched or found in the hub's cache "
            f"({cause})",
            "check the name, the network and HF_HUB_OFFLINE",
            value=name,
        ) from error


def _package_directory(name: str, *, field: str) -> Path:
    package, _, inside = name.removeprefix(_PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            field,
            f"names the package {package!r}, which is not installed",
            "install it with pip",
            value=name,
        )
    for root in map(Path, spec.submodule_search_locations):
        path = (root / inside).resolve()
        if path.is_dir() and path.is_relative_to(root.resolve()):
            return path
    raise ConfigError(
        field,
        f"names no directory inside the package {package!r}",
        "correct the part after the package",
        value=name,
    )
