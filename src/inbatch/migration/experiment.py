"""From what a source tells to an experiment: a YAML file for ``experiment=``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from inbatch.config.schema import CONF
from inbatch.migration.data import set_data
from inbatch.migration.draft import Draft
from inbatch.migration.encoder import set_encoder
from inbatch.migration.facts import Facts
from inbatch.migration.losses import set_losses
from inbatch.migration.own import set_own
from inbatch.migration.training import set_training

_GROUPS = (
    *("data", "encoder", "loss", "guide", "sampler", "gradcache", "optimizer", "schedule"),
    *("strategy", "trainer", "evaluation", "logger"),
)
_NODES = ("encoder", "loss", "sampler", "optimizer", "schedule", "strategy")
_HYDRAS = {"_partial_", "_convert_"}
_ENTRIES = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
_USUAL = {
    group: name for each in _ENTRIES if isinstance(each, dict) for group, name in each.items()
}


@dataclass(frozen=True)
class Experiment:
    """The file, what the command line has to give, and what was not carried over."""

    yaml: str
    command: str
    needs: tuple[str, ...]
    notes: tuple[str, ...]
    idle: tuple[str, ...]


def make_experiment(facts: Facts, name: str, source: str) -> Experiment:
    """Put an experiment together.

    Args:
        facts: what the source tells.
        name: of the experiment and of its file.
        source: what it was made from, for the first line.
    """
    draft = Draft()
    if facts.own is not None:
        set_own(draft, facts.own)
    else:
        set_encoder(draft, facts)
        set_losses(draft, facts)
        set_training(draft, facts)
        set_data(draft, facts)
        if facts.language:
            draft.set("card.language", list(facts.language))
        if facts.license:
            draft.set("card.license", facts.license)
    for note in facts.notes:
        draft.note(note)
    _choose_files(draft)
    command = " ".join(["inbatch train", f"experiment={name}", *_needed(draft)])
    needs = tuple(f"{key}: {what}" for key, what in draft.needs.items())
    notes = tuple(map(_one_line, draft.notes))
    return Experiment(
        _written(draft, name, source, command), command, needs, notes, tuple(draft.idle)
    )


def _choose_files(draft: Draft) -> None:
    """Name the file of each node's group, and leave out of the node what the file says already."""
    for group in _NODES:
        node = draft.settings.get(group)
        if not isinstance(node, Mapping) or "_target_" not in node:
            continue
        usual = _keys(group, _USUAL[group])
        if usual["_target_"] == node["_target_"] and all(
            key in node for key, value in usual.items() if value == "???"
        ):
            name, keys = _USUAL[group], usual  # which a run has where nothing is chosen
        else:
            name, keys = _file_of(group, node)
        if name != _USUAL[group]:
            draft.choose(group, name)
        rest = {key: value for key, value in node.items() if key not in keys or keys[key] != value}
        if name is not None:
            rest.pop("_target_", None)
        if rest:
            draft.settings[group] = rest
        else:
            del draft.settings[group]


def _file_of(group: str, node: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The file that says most of a node and nothing else; None where no file has its target."""
    best: tuple[str | None, dict[str, Any]] = (None, {})
    for path in sorted((CONF / group).glob("*.yaml")):
        keys = _keys(group, path.stem)
        alike = keys.get("_target_") == node["_target_"] and keys.keys() <= node.keys() | _HYDRAS
        # A mapping of the file would stay beside one of the node.
        fits = all(node.get(k) == v for k, v in keys.items() if isinstance(v, Mapping))
        if alike and fits and (best[0] is None or len(keys) > len(best[1])):
            best = (path.stem, keys)
    return best


def _keys(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8")) or {}


def _needed(draft: Draft) -> list[str]:
    return [f"{key}={_word(key)}" for key in draft.needs]


def _word(key: str) -> str:
    """What stands for a value in a command line."""
    words = {"model": "MODEL", "loss": "LOSS", "path": "FILE", "train": "FILE", "eval": "FILE"}
    return "LOSS" if key.startswith("loss") else words.get(key.rpartition(".")[2], "VALUE")


def _written(draft: Draft, name: str, source: str, command: str) -> str:
    lines = ["# @package _global_", f"# {_one_line(command)}", f"# From {_one_line(source)}."]
    lines += [f"#   {key}: {_one_line(what)}" for key, what in draft.needs.items()]
    if draft.notes:
        lines += ["# Not carried over:", *(f"#   {_one_line(note)}" for note in draft.notes)]
    if draft.idle:
        lines.append(_one_line(f"# Without effect here: {', '.join(draft.idle)}"))
    if draft.choices:
        ordered = sorted(draft.choices.items(), key=lambda choice: _GROUPS.index(choice[0]))
        lines += [
            "defaults:",
            *(f"  - override /{group}: {_scalar(name)}" for group, name in ordered),
        ]
    lines += ["", f"name: {_scalar(name)}"]
    lines += _lines(draft, {key: value for key, value in draft.settings.items() if key != "name"})
    return "\n".join(lines) + "\n"


def _lines(draft: Draft, node: Mapping[str, Any], prefix: str = "", indent: str = "") -> list[str]:
    lines = []
    for key, value in node.items():
        where = f"{prefix}{key}"
        comment = f"  # {draft.comments[where]}" if where in draft.comments else ""
        if isinstance(value, Mapping) and value:
            lines += [
                f"{indent}{_scalar(str(key))}:{comment}",
                *_lines(draft, value, f"{where}.", indent + "  "),
            ]
        else:
            lines.append(f"{indent}{_scalar(str(key))}: {_scalar(value)}{comment}")
    return lines


def _scalar(value: Any) -> str:
    """A value on one line, as a YAML reader takes it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).strip()
    return text.removesuffix("...").strip()


def _one_line(text: str) -> str:
    """A comment: no line ends, and nothing that a YAML reader refuses."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return " ".join(shown.split())[:300]
