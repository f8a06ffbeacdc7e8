"""Prints a table of the package's structure: python scripts/structure.py [--root CHECKOUT].

Loose modules, import circles, functions that take the whole configuration, the length of `train()`, the files
that a step passes through, the files to touch for a new loss. It reads the source of any checkout, also of an
older layout; only the walk of a step imports the package, in a process of its own.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

LATE = {"triton", "deepspeed", "wandb", "optuna", "matplotlib", "datasets"}  # may be imported late
CONFIG = "RunConfig"
# One training step of a tiny run: which files of the package are entered, in order, from the start of
# `training_step` to its end.
WALK = """
import json, sys
from pathlib import Path
import inbatch
package = str(Path(inbatch.__file__).parent)
visits, inside = [], 0
def watch(frame, event, argument):
    global inside
    name = frame.f_code.co_filename
    if not name.startswith(package):
        return
    if frame.f_code.co_name == "training_step":
        inside += {"call": 1, "return": -1}.get(event, 0)
    if inside and event == "call" and (not visits or visits[-1] != name):
        visits.append(name)
    elif inside and event == "return":
        back = frame.f_back
        while back is not None and not back.f_code.co_filename.startswith(package):
            back = back.f_back
        if back is not None and visits and back.f_code.co_filename != visits[-1]:
            visits.append(back.f_code.co_filename)
sys.argv = ["train", *sys.argv[1:]]
IMPORT
sys.setprofile(watch)
try:
    main()
finally:
    sys.setprofile(None)
    Path("walk.json").write_text(json.dumps(visits))
"""
# The module whose `main` trains, in the present layout and the older one.
MAINS = {
    "cli/train.py": "from inbatch.cli.train import main",
    "train.py": "from inbatch.train import main",
}
ROWS = [f"query {i} of some words,positive {i} of other words" for i in range(8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    root = parser.parse_args().root.resolve()
    package = root / "src" / "inbatch"
    files = sorted(package.rglob("*.py"))
    trees = {path.relative_to(package).as_posix(): ast.parse(path.read_text()) for path in files}
    loose = [name for name in trees if "/" not in name and not name.startswith("__")]
    circles = list(circles_of(import_graph(trees)))
    whole = [name for path, tree in trees.items() for name in takers(path, tree)]
    names = walk(root, package)
    entered = list(dict.fromkeys(names))
    shell = next(name for name in names if name.endswith("module.py"))
    table = {
        "loose modules at the top of the package": f"{len(loose)} ({', '.join(loose)})",
        "import circles": f"{len(circles)} ({'; '.join(', '.join(c) for c in circles)})",
        "files in circles": str(sum(map(len, circles))),
        f"functions that take the whole configuration ({CONFIG})": str(len(whole)),
        "files with such functions": str(len({name.partition(":")[0] for name in whole})),
        "lines of train(), docstring left out": str(lines_of_train(trees)),
        "files that a step passes through": f"{len(entered)} ({', '.join(entered)})",
        "returns to a file visited before": str(len(names) - len(entered)),
        "of these to the LightningModule": str(names.count(shell) - 1),
        "files to touch for a new loss": ", ".join(files_of_a_loss(trees)),
    }
    print("| | |\n|---|---|")
    for name, value in table.items():
        print(f"| {name} | {value} |")


def import_graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return {file: files that it imports}, anywhere in it: in functions and under TYPE_CHECKING too."""
    graph: dict[str, set[str]] = {path: set() for path in trees}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                if name.split(".")[0] == "inbatch":
                    graph[path] |= {file_of(name, trees)} - {path, ""}
    return graph


def file_of(name: str, trees: dict[str, ast.Module]) -> str:
    parts = name.split(".")[1:]
    for count in range(len(parts), 0, -1):
        base = "/".join(parts[:count])
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if path in trees:
                return path
    return ""


def circles_of(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield the strongly connected components of more than one file."""
    reached = {path: reachable(path, graph) for path in graph}
    left = set(graph)
    while left:
        path = min(left)
        circle = {path} | {other for other in reached[path] if path in reached[other]}
        left -= circle
        if len(circle) > 1:
            yield sorted(circle)


def reachable(path: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    new = set(graph[path])
    while new:
        found |= new
        new = {further for one in new for further in graph[one]} - found
    return found


def takers(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if any(CONFIG in ast.unparse(a.annotation) for a in arguments if a.annotation):
                yield f"{path}:{node.name}"


def lines_of_train(trees: dict[str, ast.Module]) -> int:
    tree = trees.get("run/train.py") or trees["train.py"]
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "train")
    body = node.body[1:] if ast.get_docstring(node) else node.body
    assert node.end_lineno is not None
    return node.end_lineno - body[0].lineno + 1


def walk(root: Path, package: Path) -> list[str]:
    """Return the files that one training step enters, in order, one entry per visit."""
    line = next(line for name, line in MAINS.items() if (package / name).is_file())
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.csv")
        rows.write_text("\n".join(["query,positive", *ROWS]) + "\n")
        program = WALK.replace("IMPORT", line)
        keys = ["encoder=tiny", f"data.train={rows}", "global_batch_size=8", "trainer.max_steps=1"]
        keys += ["trainer.accelerator=cpu", "gradcache=tokens"]
        environ = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", program, *keys]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        visits = json.loads(Path(folder, "walk.json").read_text())
    return [Path(name).relative_to(package).as_posix() for name in visits]


def files_of_a_loss(trees: dict[str, ast.Module]) -> list[str]:
    """Return the files that must name one loss, CoSENT: where it is looked up, its YAML and its test.

    `losses/__init__.py` gives shipped losses a short public name, and `migration` knows those that
    sentence-transformers has; a new one can do without both.
    """
    named = []
    for path, tree in trees.items():
        if path == "losses/__init__.py" or path.startswith("migration/"):
            continue
        words = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        words |= {n.name for n in ast.walk(tree) if isinstance(n, ast.alias | ast.ClassDef)}
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        if "CoSENT" in words | {t for t in texts if isinstance(t, str)}:
            named.append(path)
    return [*named, "conf/loss/cosent.yaml", "its test"]


if __name__ == "__main__":
    main()
