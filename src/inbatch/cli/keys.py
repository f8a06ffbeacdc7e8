"""Keys, groups and choices of the configuration, for help and completion.

Everything is read from `conf/`, the schema and the source of targets. Nothing heavy is imported, so that
`--help` and a press of the tab key answer at once.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union

import yaml

from inbatch.config.schema import CONF

PACKAGE = Path(__file__).parents[1]
_ENTRY = re.compile(r"(\w+(?:, \w+)*): (.+)")


class Key(NamedTuple):
    """A key of the configuration."""

    name: str  # dotted
    text: str = ""  # empty where nothing describes it
    values: tuple[str, ...] = ()  # empty where they cannot be listed
    default: str = ""


def groups() -> dict[str, str]:
    """Return the groups of `conf/`, {name: what it decides}, from the table in its README."""
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| (.+) \|$", (CONF / "README.md").read_text(), re.M
    )
    texts = {name: text for names, text in rows for name in re.findall(r"`(\w+)`", names)}
    folders = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    return {
        name: texts.get(name, "")
        for name in folders
        if choices(name) and name not in ("local", "recipe")
    }


def choices(group: str) -> list[str]:
    """Return the names of a group's files, which may be those of another folder's: `hydra/launcher`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def config_keys(config: type, chosen: Mapping[str, str], prefix: str = "") -> Iterator[Key]:
    """Yield all keys of a dataclass of the schema, and those of the targets in its groups.

    Args:
        config: a dataclass whose docstring says ``key: text`` of each field.
        chosen: {group: choice}; other groups have the choice of `conf/train.yaml`.
        prefix: of the names.
    """
    hints = typing.get_type_hints(config, include_extras=True)
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        texts |= entries(base.__doc__ or "")
    for field in fields(config):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from config_keys(hint, chosen, f"{name}.")
        elif hint is Any and not prefix and (CONF / name).is_dir():
            yield from group_keys(name, chosen.get(name) or default_choices().get(name, ""))
        else:
            yield Key(name, texts.get(field.name, ""), values_of(hint), _default(field))


def group_keys(group: str, choice: str) -> Iterator[Key]:
    """Yield the keys of the node in a group's file: those that it sets and those that its target takes."""
    path = CONF / group / f"{choice}.yaml"
    node = yaml.safe_load(path.read_text()) if path.is_file() else None
    if not isinstance(node, dict):
        return
    takes = target_keys(str(node.get("_target_", "")))
    for name in dict.fromkeys([*node, *takes]):
        if not name.startswith("_") and name != "defaults":
            shown = node.get(name)
            default = "" if isinstance(shown, dict | list | None) or shown == "???" else str(shown)
            yield Key(f"{group}.{name}", takes.get(name, ""), default=default)


@cache
def default_choices() -> dict[str, str]:
    """Return the choices of `conf/train.yaml`, {group: choice}."""
    entries = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
    listed = [entry for entry in entries if isinstance(entry, dict)]
    return {group: choice for entry in listed for group, choice in entry.items() if choice}


@cache
def target_keys(target: str) -> dict[str, str]:
    """Return what a target of this package takes, {key: text}, from its source; empty for others."""
    found = _definition(target)
    if found is None:
        return {}
    node, siblings = found
    texts = entries(ast.get_docstring(node) or "")
    if isinstance(node, ast.FunctionDef):
        taken = [*node.args.args, *node.args.kwonlyargs]
        return {a.arg: texts.get(a.arg, "") for a in taken}
    names: list[str] = []
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in siblings:
            names += target_keys(f"{target.rpartition('.')[0]}.{base.id}")
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            names += [argument.arg for argument in [*item.args.args[1:], *item.args.kwonlyargs]]
        elif isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item.annotation):
            names.append(ast.unparse(item.target))
    return {name: texts.get(name, "") for name in names if not name.startswith("_")}


def entries(docstring: str) -> dict[str, str]:
    """Return the lines ``key: text`` of a docstring, continued by indented lines, as {key: text}."""
    found: dict[str, str] = {}
    last: list[str] = []
    indent = 0
    for line in inspect.cleandoc(docstring).splitlines()[1:]:
        match, depth = _ENTRY.match(line.strip()), len(line) - len(line.lstrip())
        if match is not None and (not last or depth <= indent):
            last, indent = match[1].split(", "), depth
            found |= dict.fromkeys(last, match[2])
        elif last and depth > indent:
            found |= {name: f"{found[name]} {line.strip()}" for name in last}
        else:
            last = []
    return {name: text.rstrip(".") for name, text in found.items()}


def values_of(hint: Any) -> tuple[str, ...]:
    """Return the values of an annotation that are words: those of a `Literal`, true and false, null."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return tuple(str(value) for value in inner)
    if origin is Annotated:
        return values_of(inner[0])
    if origin in (Union, types.UnionType):
        return tuple(value for part in inner for value in values_of(part))
    return {bool: ("true", "false"), types.NoneType: ("null",)}.get(hint, ())


def _default(field: Field[Any]) -> str:
    value = field.default
    if value is MISSING or value in (None, "???") or isinstance(value, dict | list):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _definition(target: str) -> tuple[ast.ClassDef | ast.FunctionDef, set[str]] | None:
    """Return the source of a target, followed through imports, and the names defined beside it."""
    package, *parts, name = target.split(".") if "." in target else ("", target)
    path = PACKAGE.joinpath(*parts)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if package != PACKAGE.name or not path.is_file():
        return None
    tree = ast.parse(path.read_text())
    defined = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    for node in defined:
        if node.name == name:
            return node, {sibling.name for sibling in defined}
    for imported in ast.walk(tree):
        if isinstance(imported, ast.ImportFrom):
            for alias in imported.names:
                if (alias.asname or alias.name) == name:
                    return _definition(f"{imported.module}.{alias.name}")
    return None
