"""Who may import whom, and other rules that a reader relies on; checked on the source itself.

A module's layer decides what it may import: pure < core < framework < run < cli, and process beside core.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "inbatch"
FILES = sorted(SRC.rglob("*.py"))
MAX_LINES = 300

# Patterns over paths below src/inbatch; the first that matches decides.
LAYERS = [
    ("compat", r"compat/.*"),
    (
        "pure",
        r"(errors|files|data/ragged)\.py|(batch|device|losses|optim|data/plan)/.*|forecast/(?!show).*",
    ),
    (
        "pure",
        r"evaluation/(metrics|quantise|bootstrap)\.py|encoder/pooling\.py|run/(memory_plan|step_size)\.py|step/(settings|timer)\.py",
    ),
    (
        "core",
        r"console\.py|(data|encoder|gradcache|guide|corpus|mining|evaluation)/.*|config/(?!instantiate|composition).*",
    ),
    ("process", r"gather/.*|strategies/topology\.py"),
    (
        "framework",
        r"(step|strategies|callbacks|cluster|export|folder|forecast|merging|migration|recipe|sweep)/.*|config/(instantiate|composition)\.py",
    ),
    ("run", r"(run|api|doctor|sentence_transformers)/.*|__init__\.py"),
    ("cli", r"cli/.*|__main__\.py"),
]
MAY_IMPORT = {
    "compat": {"compat"},
    "pure": {"compat", "pure"},
    "core": {"compat", "pure", "core"},
    "process": {"pure", "process"},
    "framework": {"compat", "pure", "core", "process", "framework"},
    "run": {"compat", "pure", "core", "process", "framework", "run"},
    "cli": {"compat", "pure", "core", "process", "framework", "run", "cli"},
}
ALWAYS = {*sys.stdlib_module_names, "torch", "numpy"}
# Further packages. Runs and commands may import everything.
PACKAGES = {
    "pure": {"scipy", "sklearn", "xxhash"},
    "core": {
        *("transformers", "tokenizers", "datasets", "pyarrow", "safetensors", "huggingface_hub"),
        *(
            "xxhash",
            "fsspec",
            "peft",
            "omegaconf",
            "pydantic",
            "pydantic_core",
            "rich",
            "scipy",
            "sklearn",
        ),
    },
    "process": set(),
    "framework": {
        *(
            "lightning",
            "transformers",
            "huggingface_hub",
            "jinja2",
            "safetensors",
            "matplotlib",
            "omegaconf",
            "rich",
        ),
        "yaml",
    },
}
# Packages that few files may import, whatever their layer.
ONLY_IN = {
    "hydra": r"cli/.*|compat/.*|config/(instantiate|composition)\.py",
    "deepspeed": r"strategies/deepspeed\.py|compat/.*",
    "wandb": r"callbacks/.*",
    "torch.distributed": r"gather/.*|strategies/.*|callbacks/evaluation\.py"
    r"|doctor/(result|board|examine|checks/(versions|collectives))\.py",
    "flash_attn": r"encoder/varlen\.py",
    "faiss": r"mining/approximate\.py",
    "onnx_ir": r"export/onnx_file\.py",
    "onnxruntime": r"export/onnx_(check|int8)\.py",
    "peft": r"encoder/adapter(_files)?\.py",
    "pynvml": r"device/energy\.py",
    "triton": r"losses/softmax/triton_\w+\.py",
    "optuna": r"sweep/.*",
    "os.environ": r"(strategies|sweep|cluster|cli)/.*|device/allocator\.py",
}


def relative(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def layer(path: str) -> str:
    return next((name for name, pattern in LAYERS if re.fullmatch(pattern, path)), "")


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, and `torch.distributed` and `os.environ` where it names them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}".replace("os.getenv", "os.environ")
            if name in ONLY_IN:
                yield name


def file_of(module: str) -> str:
    """Path below src/inbatch of the module that holds an imported name of this package."""
    parts = module.split(".")[1:]
    for count in range(len(parts), -1, -1):
        base = SRC.joinpath(*parts[:count])
        if base.with_suffix(".py").is_file():
            return relative(base.with_suffix(".py"))
        if (base / "__init__.py").is_file():
            return relative(base / "__init__.py")
    raise AssertionError(module)


def test_every_module_has_a_layer() -> None:
    assert [path for path in map(relative, FILES) if layer(path) not in MAY_IMPORT] == []


@pytest.mark.parametrize("path", map(relative, FILES))
def test_a_module_imports_from_its_layers(path: str) -> None:
    own, wrong = layer(path), []
    for name in imported(ast.parse((SRC / path).read_text())):
        package = name.split(".")[0]
        if package == "inbatch":
            target = file_of(name)
            if target != "__init__.py" and layer(target) not in MAY_IMPORT[own]:
                wrong.append(f"{target} ({layer(target)})")
        elif (
            own not in ("compat", "run", "cli")
            and package not in {*ALWAYS, *PACKAGES[own]}
            and not limits_of(name)
        ):
            wrong.append(name)
        wrong += [name for key in limits_of(name) if not re.fullmatch(ONLY_IN[key], path)]
    assert wrong == [], f"{path} is {own}"


def limits_of(name: str) -> list[str]:
    """Keys of `ONLY_IN` that an imported name falls under."""
    return [key for key in ONLY_IN if name == key or name.startswith(f"{key}.")]


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in FILES}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


@pytest.mark.parametrize("folder", ["src", "conf", "scripts", "slurm", "tests"])
def test_no_file_names_a_place_of_one_machine(folder: str) -> None:
    root = SRC.parents[1]
    places = "work|root|mnt|scratch|Users" + ("" if folder == "tests" else "|home|tmp")
    place = re.compile(rf"(?:^|[\s\"'=(])/(?:{places})/\S*", re.MULTILINE)
    found = [
        f"{path.relative_to(root)}: {match.strip()}"
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".py", ".yaml", ".md", ".j2", ".sh", ".sbatch")
        for match in place.findall(path.read_text())
    ]
    assert found == []
