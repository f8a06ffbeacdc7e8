"""JSON schemas of the YAML files, from which editors complete keys, show what they mean and mark mistakes.

``python -m inbatch.config.json_schema`` writes conf/schema/*.json: one for each group, `format` for
conf/data/format, `train` for what starts at the top of a run (conf/train.yaml, experiments), and one for each
other command that has a file. Everything in them comes from the dataclasses of schema.py and from the
signatures and docstrings of the targets that the YAML files name.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from inbatch.config.commands import CONFIGS
from inbatch.config.schema import CONF, Keys, RunConfig
from inbatch.config.targets import annotations_of, locate
from inbatch.config.types import yaml_type

Schema = dict[str, Any]

FOLDER = CONF / "schema"
_OTHER_FOLDERS = ("experiment", "hydra", "local", "recipe", "schema")
_GIVEN_BY_THE_RUN = ("params", "texts")
_HYDRAS: Schema = {
    "_target_": {"type": "string", "description": "The class or function that is called."},
    "_partial_": {"type": "boolean", "description": "Leave the call to the run."},
    "_convert_": {"enum": ["none", "partial", "object", "all"]},
    "defaults": {"type": "array", "description": "Files that this one builds on."},
}
_LATER: Schema = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}  # interpolated, or to be given
_NODE: Schema = {"type": "object", "required": ["_target_"], "properties": _HYDRAS}


def make_schemas() -> dict[str, Schema]:
    """Make all schemas by name, which is the group's where they are a group's."""
    groups = sorted(
        path.name for path in CONF.iterdir() if path.is_dir() and path.name not in _OTHER_FOLDERS
    )
    targets = {group: _targets(group) for group in groups}
    schemas = {
        **{name: _keys_schema(config.keys, targets) for name, config in CONFIGS.items()},
        "format": _group_schema(_targets("data/format")),
    }
    hints = typing.get_type_hints(RunConfig)
    for group in groups:
        if group == "logger":
            schemas[group] = {
                "type": "object",
                "properties": _HYDRAS,
                "additionalProperties": _NODE,
            }
        elif inspect.isclass(hints[group]) and issubclass(hints[group], Keys):
            schemas[group] = _keys_schema(hints[group], targets)
        else:
            schemas[group] = _group_schema(targets[group])
    return {
        name: {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": f"inbatch: {name}",
            **schema,
        }
        for name, schema in schemas.items()
    }


def write_schemas(folder: Path = FOLDER) -> None:
    """Write all schemas, one file each."""
    folder.mkdir(exist_ok=True)
    for name, schema in make_schemas().items():
        (folder / f"{name}.json").write_text(text_of(schema), encoding="utf-8")


def text_of(schema: Schema) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def describe_parameters(docs: Iterable[str | None], names: Iterable[str]) -> dict[str, str]:
    """Find ``name: text`` of known names in docstrings, whose further lines are indented; the first wins."""
    known = set(names)
    found: dict[str, str] = {}
    for doc in docs:
        lines = inspect.cleandoc(doc or "").splitlines()
        for number, line in enumerate(lines):
            match = re.fullmatch(r"(\s*)(\w+(?:, \w+)*): (.*)", line)
            described = [] if match is None else [n for n in match[2].split(", ") if n in known]
            if match is None or not described:
                continue
            text = [match[3]]
            for further in lines[number + 1 :]:
                if not re.match(rf"{match[1]}\s+\S", further):
                    break
                text.append(further.strip())
            for name in described:
                found.setdefault(name, " ".join(text))
    return found


def _targets(group: str) -> dict[str, Callable[..., Any]]:
    """The targets that a group's files name; those of other packages differ from release to release."""
    found = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        for name in re.findall(r"_target_: (inbatch\.\S+)", path.read_text(encoding="utf-8")):
            found[name] = locate(name, group)
    return found


def _keys_schema(kind: type, targets: Mapping[str, Mapping[str, Callable[..., Any]]]) -> Schema:
    """The schema of a dataclass of schema.py; groups in it that are nodes may be given in part."""
    hints = typing.get_type_hints(kind, include_extras=True)
    docs = describe_parameters([base.__doc__ for base in kind.__mro__], hints)
    plain = kind()
    properties: Schema = {"defaults": _HYDRAS["defaults"]}
    for field in fields(kind):
        hint, value = hints[field.name], getattr(plain, field.name)
        if inspect.isclass(hint) and issubclass(hint, Keys):
            properties[field.name] = _keys_schema(hint, targets)
        elif field.name == "evaluators":
            node = _group_schema(targets["evaluation"])
            properties[field.name] = {"type": "object", "additionalProperties": _in_part(node)}
        elif field.name in targets and hint is Any:
            properties[field.name] = _in_part(_group_schema(targets[field.name]))
        else:
            properties[field.name] = _value_schema(hint, value)
        if field.name in docs:
            properties[field.name] = {**properties[field.name], "description": docs[field.name]}
    if kind in [config.keys for config in CONFIGS.values()]:
        properties["hydra"] = {"type": "object", "description": "Hydra's own settings."}
    description = inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _group_schema(targets: Mapping[str, Callable[..., Any]]) -> Schema:
    """The schema of nodes: the keys that follow from `_target_`, any for a target of another package."""
    names = {"anyOf": [{"enum": sorted(targets)}, {"type": "string"}]}
    branches = [
        {
            "if": {"properties": {"_target_": {"const": name}}, "required": ["_target_"]},
            "then": _target_schema(callee),
        }
        for name, callee in targets.items()
    ]
    properties = {
        **_HYDRAS,
        "_target_": {**names, "description": _HYDRAS["_target_"]["description"]},
    }
    return {"type": "object", "properties": properties, "allOf": branches}


def _target_schema(callee: Callable[..., Any]) -> Schema:
    parameters = inspect.signature(callee).parameters
    classes = callee.__mro__ if inspect.isclass(callee) else (callee,)
    docs = describe_parameters([each.__doc__ for each in classes], parameters)
    hints = annotations_of(callee)
    properties: Schema = dict(_HYDRAS)
    for name, parameter in parameters.items():
        if name in _GIVEN_BY_THE_RUN:
            continue
        schema = _value_schema(hints.get(name, Any), parameter.default)
        properties[name] = {**schema, "description": docs[name]} if name in docs else schema
    summary = inspect.cleandoc(callee.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return {"description": summary, "properties": properties, "additionalProperties": False}


def _in_part(node: Schema) -> Schema:
    """A node of which a file may change a few keys and leave the target to the group that it has chosen."""
    properties: Schema = {}
    for branch in node["allOf"]:
        for name, schema in branch["then"]["properties"].items():
            known = properties.setdefault(name, schema)
            if known != schema:  # of several targets, each with its own meaning
                properties[name] = {}
    return {"type": ["object", "null"], "properties": {**properties, **node["properties"]}}


def _value_schema(hint: Any, default: Any) -> Schema:
    """The schema of a value, which may be interpolated."""
    schema = TypeAdapter(yaml_type(hint)).json_schema()
    if schema and schema.get("type") != "string":
        schema = {"anyOf": [*schema.pop("anyOf", [schema]), _LATER]}
    default = list(default) if isinstance(default, tuple) else default
    if isinstance(default, bool | int | float | str | list | dict | None) and default != "???":
        schema["default"] = default
    return schema


if __name__ == "__main__":
    write_schemas()
