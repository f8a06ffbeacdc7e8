"""A run whose numbers went bad ends at once, and leaves nothing bad behind."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.runs import metrics, run_train, weights, write_triplets
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError

SAID = r"^training diverged at step {}: "


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = write_triplets(tmp_path_factory.mktemp("data") / "triplets.jsonl", 48)
    return [f"data.train={path}", "global_batch_size=8", "checkpoint.every_n_steps=1"]


def _spoil(path: Path, step: int) -> None:
    """Make gradients NaN from a step on."""
    from inbatch.run.module import BiEncoderModule

    take = BiEncoderModule._step_optimizer

    def spoiled(module: BiEncoderModule) -> None:
        if module.place.step >= step:
            next(iter(module.encoder.parameters())).grad[0, 0] = math.nan  # type: ignore[index]
        take(module)

    BiEncoderModule._step_optimizer = spoiled  # type: ignore[method-assign]


def test_the_run_ends_before_the_step_is_taken(
    tmp_path: Path, data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inbatch.run.module import BiEncoderModule

    monkeypatch.setattr(BiEncoderModule, "_step_optimizer", BiEncoderModule._step_optimizer)
    _spoil(tmp_path, 4)
    with pytest.raises(ConfigError, match=SAID.format(4)):
        run_train(*data, f"output_dir={tmp_path / 'run'}")
    found = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert (found["step"], found["batch"], found["source"]) == (4, 3, "train")
    assert len(found["rows"]) == 8
    worst = next(iter(found["gradient_norms"].items()))
    assert worst == ("backbone.embeddings.word_embeddings.weight", "nan")
    assert not (tmp_path / "run" / "model").exists()
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_skipped_steps_are_counted_and_change_nothing(
    tmp_path: Path, data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inbatch.run.module import BiEncoderModule

    monkeypatch.setattr(BiEncoderModule, "_step_optimizer", BiEncoderModule._step_optimizer)
    run_train(*data, f"output_dir={tmp_path / 'short'}", "trainer.max_steps=3")
    _spoil(tmp_path, 4)
    run_train(*data, f"output_dir={tmp_path / 'run'}", "on_nonfinite=skip")
    for name, tensor in weights(tmp_path / "short").items():
        assert torch.equal(tensor, weights(tmp_path / "run")[name]), name
    assert [row.get("train/skipped_steps") for row in metrics(tmp_path / "run")] == [
        *(None, None, None),
        *(1, 2, 3),
    ]


def _diverge(rank: int, world_size: int, overrides: list[str]) -> str:
    with pytest.raises(ConfigError) as error:
        run_train(*overrides, "trainer.devices=2", "optimizer.lr=1e20", "clip_norm=null")
    return str(error.value)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed_stage_1"])
def test_all_ranks_decide_alike(tmp_path: Path, data: list[str], strategy: str) -> None:
    said = run(_diverge, 2, [*data, f"output_dir={tmp_path / 'run'}", f"strategy={strategy}"])
    assert said[0] == said[1]
    assert said[0].startswith("training diverged at step 2: ")
    assert not (tmp_path / "run" / "model").exists()


def test_a_model_of_bad_numbers_is_not_exported(tmp_path: Path, data: list[str]) -> None:
    wild = ["optimizer.lr=1e20", "clip_norm=null", "trainer.max_steps=1"]
    with pytest.raises(ConfigError, match=SAID.format(1)):
        run_train(*data, f"output_dir={tmp_path / 'run'}", *wild)
    assert not (tmp_path / "run" / "model").exists()


def test_the_best_model_before_it_stays(tmp_path: Path, data: list[str]) -> None:
    evaluated = [data[0].replace("data.train", "data.eval"), "evaluation.every_steps=1"]
    schedule = ["schedule._target_=end_to_end.test_diverged.Explosion", "optimizer.lr=1e-4"]
    with pytest.raises(ConfigError, match="diverged at step"):
        run_train(*data, *evaluated, *schedule, "clip_norm=null", f"output_dir={tmp_path / 'run'}")
    encoder = build_encoder(str(tmp_path / "run" / "model"))
    assert encoder.encode(["some words"]).isfinite().all()


@dataclass(frozen=True)
class Explosion:
    """A schedule that makes the learning rate absurd after two steps."""

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of the learning rate."""
        return 1.0 if step < 2 else 1e30
