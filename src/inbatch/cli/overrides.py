"""A command line as Hydra's parser takes it: what users type for a file, a column or a key is what it means.

Hydra refuses `key=value` for a key that the YAML files leave out, although the target may take it. So
plain overrides are handed on as Hydra's own `++key=value`, and `inbatch.config.check` says what is wrong
with a key. Its grammar refuses or cuts up many file names and column names, and wants quotes inside of
the shell's quotes; those are added here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from inbatch.config.check import check_local
from inbatch.data.sources.config_keys import RETRIEVAL_KEYS
from inbatch.data.sources.spec import SourceSpec
from inbatch.errors import ConfigError, did_you_mean

_PLAIN = re.compile(r"(?P<group>[A-Za-z_][\w/]*)(?P<key>@?[\w.\-]*)=(?P<value>.*)", re.DOTALL)
_FOLDERS = ("output_dir", "guide.store_dir", "data.cache_dir")
# Keys of one source or evaluation set.
_SPEC = "|".join([*(field.name for field in fields(SourceSpec)), *RETRIEVAL_KEYS])
_SOURCE = re.compile(rf"data\.train\.(?!({_SPEC})=)([\w-]+)=[^{{]")  # a named one
_FILE = re.compile(
    rf"(?P<key>data\.(train|eval|texts)(\.(?P<name>(?!({_SPEC})=)[\w-]+))?)=(?P<file>(?!null$|\{{).+)",
    re.DOTALL,
)
_KEY_OF_ONE = re.compile(rf"data\.(train|eval|texts)\.({_SPEC})[.=]")
_BETWEEN_COMMAS = re.compile(
    r"""(?:^|,)\s*('(?:\\.|[^'\\])*'(?=\s*(?:,|$))|"(?:\\.|[^"\\])*"(?=\s*(?:,|$))|[^,]*)"""
)
# Keys whose values are texts, so that a number or a comma is part of one.
_TEXT = re.compile(
    r"data\.(?:train|eval|texts|columns)\b"
    r"(?!.*\.(?:limit|streaming|buffer_files|lists|max_negatives|exclude_same_id|graded)$).*"
    r"|data_dir|data\.cache_dir|name|output_dir|resume|card\.model_name|(?:prepare|plan)\.output|plan\.rates"
    r"|inspect\.output|role|prompt|ranges|models|mine\.(?:corpus(?!\.limit$).*|faiss_index)"
    r"|(?:encoder|guide)\.(?:model|revision|store_dir|prompts\..+)"
    r"|evaluation\.(?:best_metric|evaluators\..+\.(?:path|name))"
)


def complete_overrides(arguments: Sequence[str], conf: Path, *, sweep: bool = False) -> list[str]:
    """Return the arguments in Hydra's grammar: quoted where needed, `++` before each plain `key=value`.

    Args:
        arguments: without the program's name.
        conf: folder whose subfolders are the groups.
        sweep: commas separate the values of a sweep.

    Raises:
        ConfigError: a group is given something other than the name of a file, or one data set both has a
            name and has none.
    """
    completed = (_complete(argument, conf) for argument in _with_paths(arguments))
    return [quoted(argument, sweep=sweep) for argument in completed]


def quoted(argument: str, *, sweep: bool = False) -> str:
    """Return an override whose value Hydra reads as it was typed.

    Lists, dicts, quoted texts, interpolations and sweeps are Hydra's own grammar and stay.
    """
    key, equals, value = argument.partition("=")
    if not equals or not re.fullmatch(r"\+{0,2}[A-Za-z_][\w./@\-]*", key):
        return argument
    is_text = _TEXT.fullmatch(key.lstrip("+")) is not None
    return f"{key}={_readable(value, is_text=is_text, sweep=sweep)}"


def as_text(value: str) -> str:
    """Return a text in quotes, from which Hydra reads that text."""
    return QuotedString(value, Quote.single).with_quotes()


def _with_paths(arguments: Sequence[str]) -> list[str]:
    """A file that has further keys, `data.train=FILE data.train.limit=9`, as one of the keys."""
    emptied: list[str] = []  # so that nothing remains of an experiment's sources
    changed: list[str] = []
    for argument in arguments:
        match = _FILE.fullmatch(argument)
        further = [a for a in arguments if match and a.startswith(f"{match['key']}.")]
        if match is None or not further:
            changed.append(argument)
            continue
        key = match["key"]
        if match["name"] is None:
            _check_keys_of_one(key, argument, further)
            emptied.append(f"++{key}=null")
        changed.append(f"++{key}.path={match['file']}")
    return [*emptied, *changed]


def _check_keys_of_one(key: str, argument: str, further: Sequence[str]) -> None:
    for named in (each for each in further if not _KEY_OF_ONE.match(each)):
        name = named.partition("=")[0]
        last = name.removeprefix(f"{key}.")
        if "." not in last and (meant := did_you_mean(last, _SPEC.split("|"))):
            raise ConfigError(name, "is not a valid key", meant)
        raise ConfigError(
            name,
            f"belongs to a data set with a name, and {argument} has none",
            f"set {key}.NAME=FILE, or the key alone, as {key}.limit=100",
        )


def _complete(argument: str, conf: Path) -> str:
    match = _PLAIN.fullmatch(argument)
    if match is None or match["group"].split("/")[0] == "hydra":
        return argument
    group, key, value = match["group"], match["key"], match["value"]
    if f"{group}{key}" in _FOLDERS:  # before Hydra makes it
        check_local(f"{group}{key}", value)
    # So that a further key of this source does not take the file's place.
    if _SOURCE.match(argument):
        return f"++{group}{key}.path={value}"
    if not (conf / group).is_dir() or key.startswith("."):
        return f"++{argument}"
    if value == "null" or value.startswith("{"):
        files = ", ".join(sorted(path.stem for path in (conf / group).glob("*.yaml")))
        raise ConfigError(
            group,
            "is not the name of a file",
            f"set {group}= one of {files}, and {group}.<key>= for its keys",
            value=value,
        )
    return argument


def _readable(value: str, *, is_text: bool, sweep: bool) -> str:
    if re.match(r"~(/|$)", value):  # a shell leaves it, since no word begins with it
        value = str(Path(value).expanduser())
    read = _read(value)
    if read is not None and (not is_text or _is_meant(read, value, sweep=sweep)):
        return value
    if value.startswith("[") and value.endswith("]") and "," in value:
        parts = [_readable(each, is_text=is_text, sweep=False) for each in _split(value[1:-1])]
        return f"[{','.join(parts)}]"
    if sweep and "," in value:
        return ",".join(_readable(each, is_text=is_text, sweep=False) for each in _split(value))
    return as_text(value)


def _is_meant(read: Override, value: str, *, sweep: bool) -> bool:
    """Whether Hydra reads a text as it stands, or finds something in it that is written on purpose."""
    if read.is_sweep_override():
        return sweep
    found = read.value()
    is_written = value[:1] in ("'", '"') or "\\" in value or "${" in value
    return found is None or isinstance(found, dict) or is_written or _as_typed(found, value)


def _as_typed(found: Any, value: str) -> bool:
    """Whether a text, or a list of texts, is what was typed."""
    return (isinstance(found, list) and all(isinstance(e, str) for e in found)) or found == value


def _split(values: str) -> list[str]:
    """Values between commas; those in quotes may have commas inside."""
    return [each.strip() for each in _BETWEEN_COMMAS.findall(values)]


def _read(value: str) -> Override | None:
    try:
        return OverridesParser.create().parse_overrides([f"key={value}"])[0]
    except OverrideParseException:
        return None
