"""Experiments that `inbatch import` makes, composed as a run would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from helpers.runs import compose_run
from inbatch.config.check import check_config
from inbatch.migration import Experiment, make_experiment, read_source
from inbatch.migration.card import read_card

PLACEHOLDERS = {
    "loss": "cosent"
}  # what a command line gives where a source does not tell; else a file


def of_card(text: str) -> Experiment:
    return make_experiment(read_card(text), "imported", "card.md")


def of_file(path: Path) -> Experiment:
    return make_experiment(read_source(path), "imported", path.name)


def settings(experiment: Experiment, folder: Path, *more: str) -> dict[str, Any]:
    """The resolved configuration of a run of an experiment, with something for all that it needs."""
    (folder / "experiment").mkdir(exist_ok=True)
    (folder / "experiment" / "imported.yaml").write_text(experiment.yaml)
    needs = [need.partition(": ")[0] for need in experiment.needs]
    given = [f"{key}={PLACEHOLDERS.get(key, 'some.csv')}" for key in needs]
    overrides = [f"hydra.searchpath=[file://{folder}]", "experiment=imported", *given, *more]
    return asdict(check_config(compose_run(*overrides)))


def at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def comments(experiment: Experiment) -> list[str]:
    return [line[1:].strip() for line in experiment.yaml.splitlines() if line.startswith("#")]


def body(experiment: Experiment) -> Mapping[str, Any]:
    """What the file sets."""
    return yaml.safe_load(experiment.yaml) or {}
