"""A recipe's file and a command line -> the stages that run, and mistakes in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inbatch.cli.recipe import read_stages
from inbatch.config.schema import CONF
from inbatch.errors import ConfigError
from inbatch.recipe.done import is_done, marks, path_of, write_mark
from inbatch.recipe.stages import Stage, make_stages, read_recipe, recipe_files

COMMANDS = ("train", "mine", "compare")
RECIPE = """
about: two rounds
keys:
  data:
    train: ???
    eval: null
  steps: 4
stages:
  first:
    command: train
    keys:
      - data.train=${data.train}
      - data.eval=${data.eval}
      - trainer.max_steps=${steps}
  mined:
    command: mine
    keys: ["encoder.model=${folder.first}/model"]
  second:
    command: train
    keys: ["encoder.model=${folder.first}/model", "data.train=${folder.mined}/*.parquet"]
  compare:
    command: compare
    unless: data.eval=null
    keys: ["models=[${folder.first},${folder.second}]", "slurm.time=30"]
"""


def stages(tmp_path: Path, *overrides: str, text: str = RECIPE) -> list[Stage]:
    path = tmp_path / "rounds.yaml"
    path.write_text(text)
    read = read_recipe(path, "rounds")
    return make_stages(read, overrides, tmp_path / "out", commands=COMMANDS)


def test_stages_know_each_others_folders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, mined, second, compare = stages(
        tmp_path, "data.train=a.csv", "data.eval=b.csv", "steps=7", "second.optimizer.lr=1e-3"
    )
    assert first.arguments == (
        "data.train=a.csv",
        "data.eval=b.csv",
        "trainer.max_steps=7",
        f"output_dir={out}/first",
    )
    assert mined.arguments[0] == f"encoder.model={out}/first/model"
    assert (mined.after, second.after) == (("first",), ("first", "mined"))
    assert second.arguments[-2:] == ("optimizer.lr=1e-3", f"output_dir={out}/second")
    assert compare.slurm == ("time=30",)
    assert compare.arguments[0] == f"models=[{out}/first,{out}/second]"
    assert not any("slurm" in argument for argument in compare.arguments)


def test_a_key_without_a_value_leaves_arguments_and_stages_out(tmp_path: Path) -> None:
    first, *others = stages(tmp_path, "data.train=a.csv")
    assert [stage.name for stage in others] == ["mined", "second"]
    assert not any(argument.startswith("data.eval") for argument in first.arguments)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps=3"], "data.train has no value: set data.train=..."),
        (["data.trian=a.csv"], "data.trian='a.csv' is not a key of the recipe: did you mean"),
        (["data.train"], "'data.train' is not key=value"),
        (["thrid.lr=3", "data.train=a"], "thrid.lr='3' is not a key of the recipe"),
    ],
)
def test_mistakes_of_the_command_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        stages(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"keys": []}, "stages.x has no command"),
        ({"command": "trian"}, "stages.x.command='trian' is not a command: did you mean 'train'?"),
        ({"command": "train", "key": []}, "stages.x.key is not a key of a stage"),
        ({"command": "train", "keys": "a=b"}, "stages.x.keys is not a list"),
        ({"command": "train", "keys": ["a=${folder.y}"]}, "folder of y, which is no stage"),
        ({"command": "train", "keys": ["a=${folder.z}"]}, "folder of z, which comes later"),
        ({"command": "train", "keys": ["a=${nothing}"]}, "stages.x.keys='a=${nothing}' cannot be"),
    ],
)
def test_mistakes_of_a_file(tmp_path: Path, stage: dict[str, Any], message: str) -> None:
    text = yaml.safe_dump({"stages": {"x": stage, "z": {"command": "train"}}}, sort_keys=False)
    with pytest.raises(ConfigError, match=re.escape(message)):
        stages(tmp_path, text=text)


@pytest.mark.parametrize("text", ["", "stages: 3", "stages: [", "about: nothing"])
def test_files_that_are_no_recipes(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^recipe='rounds' (has no stages|cannot be read)"):
        stages(tmp_path, text=text)


def test_what_is_done_depends_on_all_that_came_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = stages(tmp_path, "data.train=a.csv")
    for stage in before:
        assert not is_done(out, stage, marks(before)[stage.name])
        write_mark(out, stage.name, marks(before)[stage.name])
        assert is_done(out, stage, marks(before)[stage.name])
    longer = stages(tmp_path, "data.train=a.csv", "steps=5")
    with pytest.raises(ConfigError, match=r"first has been done with other keys \(trainer.max_s"):
        is_done(out, longer[0], marks(longer)["first"])
    with pytest.raises(ConfigError, match="mined has been done on other results of first"):
        is_done(out, longer[1], marks(longer)["mined"])
    path_of(out, "first").write_text("{")
    assert not is_done(out, before[0], marks(before)["first"])


def test_recipes_of_a_user_come_first(tmp_path: Path) -> None:
    for folder, name in (("own", "rounds"), ("shipped", "rounds"), ("shipped", "soup")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.yaml").write_text(RECIPE)
    found = recipe_files([tmp_path / "own", tmp_path / "shipped"])
    assert {name: path.parent.name for name, path in found.items()} == {
        "rounds": "own",
        "soup": "shipped",
    }


@pytest.mark.parametrize("path", sorted((CONF / "recipe").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_checked_before_they_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text("query,positive\na,b\n")
    given = ["data.train=pairs.csv", "data.eval=pairs.csv"]
    found, output_dir = read_stages(path.stem, given)
    assert output_dir == Path(f"outputs/{path.stem}")
    assert found[-1].command == "compare"
    with pytest.raises(ConfigError, match=r"second\.optimizer\.lrr is not a valid key"):
        read_stages(path.stem, [*given, "second.optimizer.lrr=1"])
    with pytest.raises(ConfigError, match=r"merged\.method='means' is not"):
        read_stages(path.stem, [*given, "merged.method=means"])


def test_a_stage_may_write_into_its_own_folder(tmp_path: Path) -> None:
    text = "stages: {x: {command: train, keys: ['guide.store_dir=${folder.x}/teacher']}}"
    (stage,) = stages(tmp_path, text=text)
    assert stage.arguments[0] == f"guide.store_dir={tmp_path}/out/x/teacher"
    assert stage.after == ()
