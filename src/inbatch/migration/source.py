"""Find out what a source is, and read it: a card, a directory, JSON or a script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from inbatch.errors import ConfigError
from inbatch.export.redaction import flatten
from inbatch.migration.card import read_card
from inbatch.migration.facts import Call, Facts
from inbatch.migration.script import read_script

_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


def read_source(path: Path) -> Facts:
    """Read a card (.md), a directory (a model, or a run of inbatch), arguments (.json) or a script (.py).

    Raises:
        ConfigError: The source is not there, or nothing that is read here.
    """
    if path.is_dir():
        return _directory(path)
    if not path.is_file():
        raise ConfigError(
            str(path), "is not there", "name a card, a directory, a JSON file or a script"
        )
    if path.suffix in (".bin", ".pt", ".pkl"):
        raise ConfigError(
            str(path),
            "is a pickle, which runs code when it is read",
            "import the card, or arguments saved by args.to_json_string()",
        )
    text = _text(path)
    if path.suffix == ".json":
        return Facts(arguments=_json(path, text))
    if path.suffix == ".py":
        return read_script(text, path)
    if path.suffix in (".yaml", ".yml"):
        return Facts(own=_run_settings(path))
    return read_card(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not text in UTF-8", "convert it") from None


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(
            str(path), "is not JSON", "name the arguments of a training, a card or a script"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(
            str(path), "is no object of arguments", "name a file of training arguments"
        )
    return found


def _directory(folder: Path) -> Facts:
    """A run of inbatch by its configuration; a model by its card and its files."""
    for run in (folder, folder.parent):
        if (run / "config.yaml").is_file() and (run / "result.json").is_file():
            return Facts(own=_run_settings(run / "config.yaml"))
    card = folder / "README.md"
    facts = read_card(_text(card)) if card.is_file() else Facts()
    if facts.own is not None:
        return facts
    if card.is_file():
        facts.notes = [note for note in facts.notes if not note.startswith("nothing of a training")]
    modules = _modules(folder)
    if not modules and not card.is_file() and not (folder / "config.json").is_file():
        raise ConfigError(
            str(folder),
            "holds neither a model nor a card",
            "name a directory with modules.json or README.md",
        )
    if modules:
        facts.modules = modules
        first = modules[0].options
        facts.max_length = first.get("max_seq_length") or facts.max_length
    settings = _read(folder / "config_sentence_transformers.json")
    facts.prompts = {k: v for k, v in (settings.get("prompts") or {}).items() if v}
    facts.default_prompt = settings.get("default_prompt_name")
    if settings.get("similarity_fn_name") in _SIMILARITIES:
        facts.similarity = settings["similarity_fn_name"]
    adapter = _read(folder / "adapter_config.json")
    if adapter:
        facts.adapter = adapter
        facts.base_model = facts.base_model or adapter.get("base_model_name_or_path")
    if not facts.arguments and (folder / "training_args.bin").is_file():
        facts.notes.append(
            "training_args.bin: a pickle, which is not read; save args.to_json_string() and import that"
        )
    return facts


def _modules(folder: Path) -> list[Call]:
    listed = _read(folder / "modules.json", list)
    found = []
    for entry in listed if isinstance(listed, list) else []:
        kind = str(entry.get("type", "")).rpartition(".")[2]
        place = folder / str(entry.get("path", ""))
        options = _read(place / "config.json") if entry.get("path") else {}
        if kind == "Transformer":
            options = _read(place / "sentence_bert_config.json")
            architectures = _read(place / "config.json").get("architectures") or [kind]
            options = {**options, "architecture": architectures[0]}
        found.append(Call(kind, (), options))
    return found


def _read(path: Path, kind: type = dict) -> Any:
    if not path.is_file():
        return kind()
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise ConfigError(str(path), "is not JSON", "restore the file") from None
    return found if isinstance(found, kind) else kind()


def _run_settings(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(_text(path))
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(
            str(path), "is no configuration of a run", "name config.yaml of a finished run"
        )
    return flatten(found)
