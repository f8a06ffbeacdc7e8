"""Parts of a user's own package: one Python file and one YAML each, checked by their signatures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from helpers.runs import compose_run, run_train, write_triplets
from inbatch.config.check import check_config
from inbatch.config.instantiate import instantiate
from inbatch.errors import ConfigError
from inbatch.optim import parameter_groups

PACKAGE = '''
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from inbatch.data.plan.samplers import Shuffled
from inbatch.errors import ConfigError
from inbatch.losses import MultipleNegativesRanking


@dataclass(frozen=True)
class MyLoss(MultipleNegativesRanking):
    """In-batch negatives, with one more number."""

    sharpness: float = 2.0

    def __post_init__(self):
        if self.sharpness <= 0:
            raise ConfigError("sharpness", "is too small", "set a number above 0", value=self.sharpness)


@dataclass(frozen=True)
class MySampler(Shuffled):
    """Rows in shuffled order."""


@dataclass(frozen=True, kw_only=True)
class Stairs:
    """Half the learning rate after each `share` of the run."""

    share: float = 0.25
    shape: Literal["flat", "steep"] = "flat"

    def factor(self, step, total_steps):
        return 0.5 ** (step // max(1, round(self.share * total_steps)))


class SignSGD(torch.optim.Optimizer):
    def __init__(self, params, *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())
        return loss


def second_token(tokens, mask, padding):
    return tokens[:, 1]
'''
FILES = {
    "loss": "_target_: my_package.MyLoss\nsharpness: 3.0\n",
    "sampler": "_target_: my_package.MySampler\n",
    "schedule": "_target_: my_package.Stairs\nshare: 0.5\n",
    "optimizer": "_target_: my_package.SignSGD\n_partial_: true\nlr: 1.0e-3\n",
    "encoder": "defaults:\n  - tiny\npooling: my_package.second_token\n",
}
ALL = tuple(f"{group}=mine" for group in FILES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like conf/, and an importable package beside it."""
    (tmp_path / "my_package.py").write_text(PACKAGE)
    for group, text in FILES.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(f"# {group} of my own\n{text}")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def compose(folder: Path, *overrides: str) -> DictConfig:
    """The composition that `--config-dir FOLDER/conf` gives."""
    search = f"hydra.searchpath=[file://{folder / 'conf'}]"
    return compose_run("data.train=x.csv", *overrides, search)


def test_own_parts_compose_and_pass_the_checks(folder: Path) -> None:
    run = check_config(compose(folder, *ALL))
    assert run.loss["_target_"] == "my_package.MyLoss"
    assert (run.loss["sharpness"], run.loss["temperature"]) == (3.0, 0.05)
    assert run.schedule == {"_target_": "my_package.Stairs", "share": 0.5, "shape": "flat"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.sharpnes=1", r"loss.sharpnes is not a valid key of my_package.MyLoss: did you mean"),
        ("loss.sharpness=high", "loss.sharpness='high' is not a number"),
        ("loss.sharpness=-1", "loss.sharpness=-1 is too small: set a number above 0"),
        ("schedule.shape=step", "schedule.shape='step' is not one of flat, steep: did you mean"),
        ("optimizer.lr=-1", "optimizer.lr=-1 is out of range: set 0 or more"),
        ("optimizer.momentum=1", r"optimizer.momentum is not a valid key of my_package.SignSGD"),
    ],
)
def test_own_parts_are_checked_by_their_signatures(
    folder: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(compose(folder, *ALL, override))
    assert message in str(error.value)


def test_an_own_optimizer_and_schedule_are_built(folder: Path) -> None:
    run = check_config(compose(folder, *ALL))
    model = torch.nn.Linear(4, 2)
    optimizer = instantiate(run.optimizer)(parameter_groups(model.named_parameters()))
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert instantiate(run.schedule).factor(6, 10) == 0.5


def test_own_parts_train(folder: Path) -> None:
    rows = write_triplets(folder / "rows.jsonl")
    search = f"hydra.searchpath=[file://{folder / 'conf'}]"
    chosen = [choice for choice in ALL if not choice.startswith("encoder")]
    output = run_train(
        *chosen,
        "encoder.pooling=my_package.second_token",
        f"data.train={rows}",
        f"output_dir={folder / 'run'}",
        "global_batch_size=16",
        "trainer.max_steps=2",
        search,
    )
    assert (output / "model" / "modules.json").exists()
