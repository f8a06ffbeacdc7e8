"""`inbatch plan` as a user calls it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from forecast.test_forecast_rates import doctors
from helpers.runs import TINY, compose_run, write_triplets
from inbatch.cli.plan import PlanConfig, plan, read_config, read_rates
from inbatch.errors import ConfigError


def test_a_plan_is_printed_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "doctor.json").write_text(json.dumps(doctors()))
    options = [
        f"data.train={write_triplets(tmp_path / 'rows.jsonl')}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "global_batch_size=32",
        f"++plan.rates={tmp_path / 'doctor.json'}",
        "++plan.ranks=8",
        f"++plan.output={tmp_path / 'out'}",
        "precision=auto",
    ]
    output = plan(*read_config(compose_run(*TINY, *options)))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("computed for Some CPU: 32 rows x 3 texts of ")
    assert shown[0].endswith(", bf16")
    assert [line.split()[0] for line in shown[2:6]] == ["1", "2", "4", "8"]
    assert any(line.startswith("ddp, ring: ") for line in shown)
    assert shown[-3].startswith("1 ranks fit ")
    with (output / "plan.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + 3 * 4 * 2
    assert {row["strategy"] for row in rows} >= {"ddp", "fsdp", "deepspeed_stage_3"}
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert (output / "plan.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "plan.rates has no value: name a card or a file"),
        ({"rates": "h100", "ranks": 0}, "plan.ranks=0 is too small"),
        ({"rates": "h100", "gpus": 8}, "plan.gpus is not a valid key"),
    ],
)
def test_mistakes_are_one_sentence(keys: dict[str, object], said: str) -> None:
    config = compose_run("encoder=tiny", "data.train=x.csv")
    OmegaConf.update(config, "plan", keys, force_add=True)
    with pytest.raises(ConfigError) as error:
        read_config(config)
    assert str(error.value).startswith(said)


def test_a_card_may_be_a_number() -> None:
    config = compose_run("encoder=tiny", "data.train=x.csv", "++plan.rates=4090")
    assert read_rates(read_config(config)[1]).name.endswith("4090 24 GB")


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_rates(PlanConfig(rates=str(tmp_path / "x.json")))
