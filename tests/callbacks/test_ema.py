"""The average of the weights: a float64 recursion over the same steps, in shards and after kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import metrics, run_train, run_with, weights, write_triplets
from inbatch.callbacks.ema import share_of_newest
from inbatch.callbacks.evaluation import Evaluation
from inbatch.errors import ConfigError
from inbatch.merging.inputs import find_ingredients
from inbatch.merging.weights import Key

pytestmark = pytest.mark.xdist_group("ema")  # one run on one rank for all

DECAY = 0.8
KILL = 5  # after a checkpoint of step 4


class KilledError(Exception):
    """In place of a signal that leaves no time to do anything."""


class Watch(Callback):
    """Keeps the recursion in float64, and may end the run after a step, when its checkpoint is written."""

    def __init__(self, kill: int | None = None) -> None:
        self.average: dict[str, Tensor] = {}
        self._kill = kill

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        module: Any = pl_module
        state = module.strategy.full_state(module.encoder, rank=trainer.global_rank)
        share = (1 - DECAY) / (1 - DECAY**trainer.global_step)
        for name, weight in state.items():
            before = self.average.get(name, torch.zeros(()).double())
            self.average[name] = before + share * (weight.double() - before)
        if trainer.global_step == self._kill:
            raise KilledError


def options(folder: Path, strategy: str) -> list[str]:
    rows = write_triplets(folder / "triplets.jsonl", 24)
    return [
        # Of the units of FSDP that stay gathered after an evaluation.
        *(["strategy.reshard_after_forward=false"] if strategy == "fsdp" else []),
        *(f"data.train={rows}", f"data.eval={rows}", f"strategy={strategy}"),
        # No dropout, which each rank draws for itself, and gradients in their own size.
        *("encoder.config.hidden_dropout_prob=0", "encoder.config.attention_probs_dropout_prob=0"),
        *("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.5"),
        *("global_batch_size=8", "trainer.max_epochs=2", "checkpoint.every_n_steps=2"),
        f"ema.decay={DECAY}",
    ]


def _whole_and_in_parts(
    rank: int, world_size: int, given: list[str], whole: Path, parts: Path | None
) -> dict[str, Tensor]:
    """A run, and one that is killed and resumed, by the same ranks; the recursion of the first."""
    quiet()
    watch = Watch()
    run_with(watch, None, *given, f"output_dir={whole}")
    if parts is None:
        return watch.average
    with pytest.raises(KilledError):
        run_with(Watch(KILL), None, *given, f"output_dir={parts}")
    run_with(Watch(), None, *given, f"output_dir={parts}")
    return watch.average


def names_in_model(average: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("backbone."): tensor for name, tensor in average.items()}


@pytest.fixture(scope="module")
def on_one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The average of a run on one rank, which has been checked."""
    folder = tmp_path_factory.mktemp("one")
    return check_average(folder, "auto", 1)


def check_average(
    folder: Path, strategy: str, ranks: int, *, killed: bool = True
) -> dict[str, Tensor]:
    """Compare the exported average with the recursion, and with a run that is killed and resumed."""
    parts = folder / "parts" if killed else None
    given = [*options(folder, strategy), "evaluation.every_steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        # The last model is exported, whatever the metric says of it.
        patch.setattr(Evaluation, "_improved", lambda evaluation, value: True)
        average, *_ = run(_whole_and_in_parts, ranks, given, folder / "whole", parts)
    exported, found = weights(folder / "whole"), names_in_model(average)
    trained = {name: found[name] for name in exported if name in found}
    assert len(trained) > 30
    for name, tensor in trained.items():
        torch.testing.assert_close(exported[name].double(), tensor, rtol=0, atol=5e-7)
    for name, tensor in weights(parts).items() if parts else ():
        assert torch.equal(tensor, exported[name]), name
    return trained


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        "ddp",
        *(pytest.param(s, marks=pytest.mark.exhaustive) for s in ("fsdp", "deepspeed_stage_3")),
    ],
)
def test_the_average_of_two_ranks_is_that_of_one(
    tmp_path: Path, on_one_rank: dict[str, Tensor], strategy: str
) -> None:
    """Nor have evaluations in between left anything of the average in the weights that train."""
    # FSDP and DeepSpeed keep a rank's part of the average in its part of a checkpoint.
    killed = strategy == "fsdp"
    for name, tensor in check_average(tmp_path, strategy, 2, killed=killed).items():
        torch.testing.assert_close(tensor, on_one_rank[name], rtol=0, atol=1e-5)


def test_the_average_is_the_recursion_and_survives_a_kill(on_one_rank: dict[str, Tensor]) -> None:
    assert all(torch.isfinite(tensor).all() for tensor in on_one_rank.values())


def values(folder: Path, name: str) -> list[float]:
    return [row[name] for row in metrics(folder) if name in row]


def test_evaluation_is_of_the_average_and_training_goes_on_without_it(tmp_path: Path) -> None:
    given = [*options(tmp_path, "auto"), "evaluation.every_steps=1"]
    averaged = run_train(*given, f"output_dir={tmp_path / 'averaged'}")
    plain = run_train(*given, "ema.decay=null", f"output_dir={tmp_path / 'plain'}")
    assert values(averaged, "train/loss") == values(plain, "train/loss")  # to the last bit
    ours, theirs = (values(each, "eval/eval_cosine_accuracy") for each in (averaged, plain))
    assert ours[0] == theirs[0]  # before the first step
    assert ours != theirs


def test_a_checkpoint_is_merged_as_its_average(tmp_path: Path) -> None:
    given = [each for each in options(tmp_path, "auto") if not each.startswith("data.eval")]
    folder = run_train(*given, f"output_dir={tmp_path / 'offers'}")
    checkpoints = f"{folder}/checkpoints/*.ckpt"
    before, last = find_ingredients(checkpoints, best=None)  # last.ckpt is a link to one of them
    assert (before.label, last.label) == ("offers at step 4", "offers at step 6")
    for name, tensor in weights(folder).items():
        assert torch.equal(last.weights.read(Key("", name)), tensor), name
    with pytest.raises(ConfigError, match=r"ema.decay was 0.8 and is 0.5"):
        run_train(*given, "ema.decay=0.5", f"output_dir={tmp_path / 'offers'}")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("precision=bf16-true", "precision='bf16-true' holds weights in 16 bits"),
        ("encoder.dtype=bfloat16", "encoder.dtype='bfloat16' holds weights in 16 bits"),
        ("ema.decay=1.0", "ema.decay=1.0"),
    ],
)
def test_what_has_no_average_is_refused(tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run_train(*options(tmp_path, "auto"), setting, f"output_dir={tmp_path / 'run'}")
    assert said in str(refused.value)


def test_shares_are_those_of_a_mean_whose_weights_fall_by_the_decay() -> None:
    average = 0.0
    for step in range(1, 50):
        average += share_of_newest(0.9, step) * (step - average)
    shares = [0.9 ** (49 - step) for step in range(1, 50)]
    expected = sum(s * step for s, step in zip(shares, range(1, 50), strict=True)) / sum(shares)
    assert average == pytest.approx(expected)
    assert share_of_newest(0.9, 1) == 1.0
