"""The encoder's files import each other in one direction, and nothing of the data."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import inbatch.encoder

FOLDER = Path(inbatch.encoder.__file__).parent


def imports(path: Path) -> set[str]:
    """Modules of this package that a file names in an import, wherever that stands."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


def test_no_circle() -> None:
    modules = {path.stem: path for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    graph = {
        name: {m.removeprefix("inbatch.encoder.") for m in imports(path)} & modules.keys()
        for name, path in modules.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises for a circle
    assert set(order) == set(modules)


def test_the_encoder_knows_nothing_of_the_data() -> None:
    found = {module for path in FOLDER.glob("*.py") for module in imports(path)}
    parts = {module.split(".")[1] for module in found if module.startswith("inbatch.")}
    assert parts == {"batch", "compat", "device", "encoder", "errors", "files"}
