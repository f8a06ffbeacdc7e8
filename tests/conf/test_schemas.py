"""The JSON schemas of conf/schema: in step with the code, and true of every YAML file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from jsonschema import Draft7Validator
from omegaconf import OmegaConf

from inbatch.config.json_schema import FOLDER, describe_parameters, make_schemas, text_of

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
FILES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted(CONF.rglob("*.yaml"))
    if path.relative_to(CONF).parts[0] not in ("hydra", "local", "recipe")
]
EDITOR = json.loads((ROOT / ".vscode" / "settings.json").read_text())["yaml.schemas"]
MODELINE = "# yaml-language-server: $schema=../schema/"

schemas = cache(make_schemas)


def test_the_files_are_those_that_the_code_makes() -> None:
    written = {path.stem: path.read_text() for path in FOLDER.glob("*.json")}
    made = {name: text_of(schema) for name, schema in schemas().items()}
    assert written == made, "write them anew: python -m inbatch.config.json_schema"


def name_of(file: str) -> str:
    """The schema that an editor takes for a file: the file's own word, else the editor's settings."""
    own = [line for line in (ROOT / file).read_text().splitlines() if line.startswith(MODELINE)]
    if own:
        return own[0].removeprefix(MODELINE).removesuffix(".json")
    (found,) = [p for p, globs in EDITOR.items() if any(map(PurePosixPath(file).match, globs))]
    return Path(found).stem


def mistakes(name: str, node: Any) -> list[str]:
    return [error.message for error in Draft7Validator(schemas()[name]).iter_errors(node)]


@pytest.mark.parametrize("file", FILES)
def test_every_file_keeps_to_its_schema(file: str) -> None:
    node = OmegaConf.to_container(OmegaConf.load(ROOT / file))
    assert mistakes(name_of(file), node) == []


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("train", {"globl_batch_size": 8}),
        ("train", {"precision": "fp61"}),
        ("train", {"trainer": {"max_epoch": 1}}),
        ("train", {"checkpoint": {"keep": -1}}),
        ("loss", {"_target_": "inbatch.losses.GIST", "temprature": 1.0}),
        ("loss", {"_target_": "inbatch.losses.GIST", "margin_strategy": "absolut"}),
        ("gradcache", {"chunk_tokens": "automatic"}),
        ("encoder", {"_target_": "inbatch.encoder.build_encoder", "max_length": "long"}),
    ],
)
def test_a_mistake_is_marked(name: str, node: Any) -> None:
    assert mistakes(name, node)


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("loss", {"_target_": "my_package.Loss", "anything": 1}),
        ("train", {"encoder": {"max_length": 64}, "loss": {"temperature": 0.1}}),
        ("train", {"global_batch_size": "${size}"}),
        ("train", {"loss": {"pairs": {"_target_": "inbatch.losses.CoSENT"}}}),
    ],
)
def test_what_is_right_is_not_marked(name: str, node: Any) -> None:
    assert mistakes(name, node) == []


def test_every_key_of_a_run_is_described() -> None:
    def silent(schema: dict[str, Any], place: str) -> list[str]:
        inner = schema.get("properties", {})
        found = [] if "description" in schema else [place]
        if "_target_" in inner:  # described by its targets
            return []
        return found + [p for key, value in inner.items() for p in silent(value, f"{place}.{key}")]

    assert silent(schemas()["train"], "") == []


def test_descriptions_come_from_docstrings() -> None:
    doc = """Summary.

    Args:
        first, second: two of them,
            over two lines.
        other: not a parameter.
        third: the last.
    """
    assert describe_parameters([doc], ["first", "second", "third"]) == {
        "first": "two of them, over two lines.",
        "second": "two of them, over two lines.",
        "third": "the last.",
    }
