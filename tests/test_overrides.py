"""What is typed for a file, a column or a key is what it means, whatever Hydra's grammar makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.launching import ROOT, run
from helpers.runs import CONF_DIR, TINY, compose_run
from inbatch.cli.overrides import as_text, complete_overrides, quoted
from inbatch.config.check import check_config
from inbatch.errors import ConfigError

NAMES = [
    *("lake/dt=2026-01-01/p.csv", "offers (1).csv", "a,b.csv", "[a].csv", "{a}.csv", "it's.csv"),
    *('a"b.csv', "a:b.csv", "a: b.csv", "a b.csv", "é.csv", "a#1.csv", "50%.csv", "a&b;c!.csv"),
    *(
        "Title (EN)",
        "2024",
        "1e4",
        "true",
        "f(x)",
        "x=[y]",
        "a\\b (1)",
        "ends in \\",
        "<p>",
        "日本.csv",
    ),
]


def completed(*arguments: str, sweep: bool = False) -> list[str]:
    return complete_overrides(arguments, Path(CONF_DIR), sweep=sweep)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken_as_it_is(name: str) -> None:
    run = compose_run(
        f"data.train={name}", f"data.eval.dev={name}", f"data.columns.query={name}",
        f"output_dir={name}", f"encoder.model={name}", f"+more={'x (1)'}",
    )  # fmt: skip
    found = (run.data.train, run.data.eval.dev, run.data.columns.query, run.output_dir, run.more)
    assert found == (name, name, name, name, "x (1)")
    assert run.encoder.model == name
    if "," not in name and "\\" not in name:
        assert compose_run(f"data.train=[x.csv,{name}]").data.train == ["x.csv", name]


@pytest.mark.parametrize("value", NAMES)
def test_a_text_is_read_back(value: str) -> None:
    assert compose_run(f"+more={as_text(value)}").more == value


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.train=[a.csv,b.csv]", ["a.csv", "b.csv"]),
        ("data.train='x,y.csv'", "x,y.csv"),
        ("data.train=['x,y.csv', z (1).csv]", ["x,y.csv", "z (1).csv"]),
        ("data.train={a: x.csv}", {"a": "x.csv"}),
        ("data.eval=null", None),
        ("data.train=${data_dir}/x.csv", "data/x.csv"),
        ("data.train=${data_dir}/x (1).csv", "data/x (1).csv"),
        ("data.train=a\\,b.csv", "a,b.csv"),
        ("encoder.prompts.query=find: ", "find: "),
        ("optimizer.betas=[0.8,0.9]", [0.8, 0.9]),
        ("optimizer.lr=1e-4", 1e-4),
        ("encoder.config={a: 1}", {"a": 1}),
    ],
)
def test_what_hydra_reads_as_meant_stays(argument: str, value: object) -> None:
    run = compose_run("data_dir=data", argument)
    assert OmegaConf.select(run, argument.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("data.train=a.csv,b.csv", "++data.train=a.csv,b.csv"),
        ("data.train=a (1).csv,b.csv", "++data.train='a (1).csv',b.csv"),
        ("optimizer.lr=1e-4,1e-3", "++optimizer.lr=1e-4,1e-3"),
        ("name=choice(a,b)", "++name=choice(a,b)"),
        ("seed=range(1,3)", "++seed=range(1,3)"),
        ("loss=gist,cosent", "loss=gist,cosent"),
    ],
)
def test_a_sweep_stays_one(argument: str, expected: str) -> None:
    assert completed(argument, sweep=True) == [expected]


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = compose_run("data.train=~/x.csv", "output_dir=~/runs/a=1", "data.eval=[~/a.csv,~/b.csv]")
    assert run.data.train == f"{tmp_path}/x.csv"
    assert run.output_dir == f"{tmp_path}/runs/a=1"
    assert run.data.eval == [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv"]


def test_arguments_that_are_complete_stay() -> None:
    """Ranks and trials are started with them."""
    once = completed("data.train=a (1).csv", "data.train.limit=3", "hydra.run.dir=x (1)", "~seed")
    assert completed(*once) == once
    assert quoted("hydra.run.dir=x (1)") == "hydra.run.dir='x (1)'"


@pytest.mark.parametrize("order", [1, -1])
def test_one_file_with_further_keys(order: int) -> None:
    arguments = ["data.train=x.csv", "data.train.limit=3", "data.train.columns.query=Title (EN)"]
    arguments += ["data.eval=y.csv", "data.eval.columns.positive=title"]
    for experiment in ([], ["experiment=demo"]):
        run = compose_run("encoder=tiny", *experiment, *arguments[::order])
        source = {"path": "x.csv", "limit": 3, "columns": {"query": "Title (EN)"}}
        assert run.data.train == source
        checked = check_config(run)
        assert list(checked.data.train) == ["train"]
        (evaluator,) = [
            node for name, node in checked.evaluation.evaluators.items() if name == "eval"
        ]
        assert evaluator["path"] == {"path": "y.csv", "columns": {"positive": "title"}}


def test_a_named_file_with_further_keys() -> None:
    run = compose_run(
        "data.train.a-b=x.csv", "data.train.a-b.limit=3",
        "data.eval.dev.columns.positive=title", "data.eval.dev=y.csv",
    )  # fmt: skip
    assert run.data.train == {"a-b": {"path": "x.csv", "limit": 3}}
    assert run.data.eval == {"dev": {"path": "y.csv", "columns": {"positive": "title"}}}


def test_a_path_or_a_hub_data_set_is_one_source() -> None:
    for key in ("path", "hub"):
        run = check_config(compose_run("encoder=tiny", f"data.train.{key}=x", "data.train.limit=3"))
        assert run.data.train == {"train": {key: "x", "limit": 3, "columns": None}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data.train=x.csv", "data.train.train.limit=3"],
            "data.train.train.limit belongs to a data set with a name, and data.train=x.csv has none: set "
            "data.train.NAME=FILE, or the key alone, as data.train.limit=100",
        ),
        (
            ["data.train=x.csv", "data.train.more=y.csv"],
            "data.train.more belongs to a data set with a name, and data.train=x.csv has none: set ",
        ),
        (
            ["experiment=demo", "data.train.path=x.csv"],
            "data.train.offers is a source with a name beside one without: set data.train=FILE, which ",
        ),
        (
            ["experiment=demo", "data.train.limit=3"],
            "data.train.limit belongs to one file: set data.train=FILE too, or data.train.offers.limit",
        ),
        (
            ["experiment=cpv_mnrl", "data.train.limit=3"],
            "data.train.limit belongs to one file: set data.train=FILE too",
        ),
    ],
)
def test_keys_without_a_file_and_names_beside_none(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(compose_run("encoder=tiny", *arguments))
    assert str(error.value).startswith(message)


def test_a_run_reads_such_files(tmp_path: Path) -> None:
    """Through the command, with names that the shell hands on as they are."""
    rows = [
        {"Title (EN)": f"red shoe {n}", "it's, [the] other: one": f"shoe {n}"} for n in range(16)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    files = ["lake/dt=2026-01-01/p.jsonl", "offers (1), [new] it's.jsonl"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    line = [
        *(sys.executable, str(ROOT / "scripts" / "train.py"), *TINY),
        *("data.train=~/lake/dt=2026-01-01/p.jsonl", "data.train.limit=8"),
        *(f"data.eval={files[1]}", "data.columns.query=Title (EN)"),
        *("data.columns.positive=it's, [the] other: one", "output_dir=out (1)"),
        *("global_batch_size=4", "trainer.max_steps=1"),
    ]
    ended = run(line, folder=tmp_path, HOME=str(tmp_path))
    assert ended.code == 0, ended.output
    config = OmegaConf.load(tmp_path / "out (1)" / "config.yaml")
    assert config.data.train.train.limit == 8
