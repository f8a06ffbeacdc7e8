"""Cards and scripts that are broken in any way: an experiment that is YAML, or one sentence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from test_import_cards import card, fit_card
from test_import_scripts import FIT, HEAD, TRAINER

from inbatch.errors import ConfigError
from inbatch.migration import make_experiment
from inbatch.migration.card import read_card
from inbatch.migration.script import read_script

CARDS = [card("3"), card("6"), fit_card(edited=True)]
SCRIPTS = [HEAD + TRAINER, HEAD + FIT.format(warmup="int(len(loader) * 0.1)")]
LETTERS = "{}[]()'\"`|#*-:,\\\n\0\u202e\U0001f600<>&"
VALUES = ["True", "None", "5e-05", "-1", "'x'", "[1, 2]", "{'a': 1}", "nan", "1e400", "no", ""]


def broken(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(text))
        end = min(len(text), start + rng.choice([1, 5, 50, 2000]))
        kind = rng.randrange(6)
        if kind == 0:
            text = text[:start] + text[end:] or " "
        elif kind == 1:
            text = text[:start] + text[start:end] * 2 + text[end:]
        elif kind == 2:
            text = text[:start] + rng.choice(LETTERS) * rng.randint(1, 4) + text[start:]
        elif kind == 3:
            text = text.replace("\n", " ", rng.randint(1, 400))
        elif kind == 4:
            text = text[:start] + text[start:end].upper() + text[end:]
        else:
            lines = text.split("\n")
            place = rng.randrange(len(lines))
            lines[place] = lines[place].partition(": ")[0] + ": " + rng.choice(VALUES)
            text = "\n".join(lines)
    return text


@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_an_experiment_or_a_sentence(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        is_script = rng.random() < 0.3
        text = broken(rng.choice(SCRIPTS if is_script else CARDS), rng)
        try:
            facts = read_script(text, Path("x.py")) if is_script else read_card(text)
        except ConfigError:
            continue
        experiment = make_experiment(facts, "name", "source")
        assert isinstance(yaml.safe_load(experiment.yaml), dict)
        assert experiment.yaml.startswith("# @package _global_\n")
