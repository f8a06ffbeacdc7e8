"""Under every strategy bf16 is autocast around float32 weights, and the loss sees float32 alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from torch import Tensor

from helpers.distributed import run
from helpers.keystone import (
    STRATEGIES,
    distributed,
    fit,
    make_encoder,
    make_step,
    quiet,
    reference,
    relative_error,
)
from inbatch.losses import CosineSimilarity
from inbatch.losses.base import LossInput, LossOutput
from inbatch.strategies import DeepSpeed, Strategy

OFFLOADED = replace(STRATEGIES["deepspeed_stage_2"], offload_optimizer=True)  # type: ignore[type-var]
SCALINGS: dict[str, Strategy] = {**STRATEGIES, "deepspeed_2_offload": OFFLOADED}
CHUNKS = (5, 2)


class InFloat32(CosineSimilarity):
    """Refuses to compute from anything else, and outside float32."""

    def __call__(self, inputs: LossInput) -> LossOutput:
        assert inputs.labels is not None
        dtypes = {tensor.dtype for tensor in (*inputs.columns, inputs.labels)}
        assert dtypes == {torch.float32}, dtypes
        assert not torch.is_autocast_enabled("cpu")
        return super().__call__(inputs)


def _train(
    rank: int, world_size: int, path: Path, strategy: str, precision: str, num_steps: int
) -> list[dict[str, Tensor]]:
    quiet()
    step: dict[str, Any] = {"num_rows": 12, "dtype": torch.float32, "num_steps": num_steps}
    step |= {"keep_gib": 0, "precision": precision}
    first = (rank, world_size, path, SCALINGS[strategy], InFloat32())
    return [distributed(*first, chunk_rows=rows, **step) for rows in CHUNKS]


def _errors(path: Path, strategy: str) -> list[float]:
    start = {n: p.detach().clone() for n, p in make_encoder(path, torch.float32).named_parameters()}
    wanted = reference(path, CosineSimilarity(), 12, 1, torch.float32)
    found = run(_train, 2, path, strategy, "bf16-mixed", 1)[0]
    assert {tensor.dtype for state in found for tensor in state.values()} == {torch.float32}
    return [relative_error(state, wanted, start) for state in found]


@pytest.fixture(scope="module")
def ddp_errors(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    from helpers.tiny import save_tiny_bert

    return _errors(save_tiny_bert(tmp_path_factory.mktemp("bert")), "ddp")


@pytest.mark.parametrize(
    "strategy",
    [
        "fsdp",
        "deepspeed_stage_2",
        *(
            pytest.param(f"deepspeed_{name}", marks=pytest.mark.exhaustive)
            for name in ("stage_1", "2_offload", "stage_3")
        ),
    ],
)
def test_a_step_in_bf16_errs_as_under_ddp(
    tiny_bert: Path, strategy: str, ddp_errors: list[float]
) -> None:
    """Also when gradients of more chunks are added up, and what is exported is float32."""
    assert min(ddp_errors) > 1e-5
    for error, usual in zip(_errors(tiny_bert, strategy), ddp_errors, strict=True):
        assert 1e-5 < error <= 2 * usual


def test_fsdp_gathers_matrices_in_16_bits_and_changes_nothing_by_it(tiny_bert: Path) -> None:
    """Autocast would cast them after they are gathered. With two ranks no sum has another order."""
    ddp, fsdp = (run(_train, 2, tiny_bert, name, "bf16-mixed", 2)[0] for name in ("ddp", "fsdp"))
    start = {
        n: p.detach().clone() for n, p in make_encoder(tiny_bert, torch.float32).named_parameters()
    }
    for found, wanted in zip(fsdp, ddp, strict=True):
        assert relative_error(found, wanted, start) <= 1e-6
    for dtypes in run(_gathered, 2, tiny_bert):
        assert dtypes == {
            "layer.0.attention.self.query.weight": torch.bfloat16,
            "layer.0.attention.output.LayerNorm.weight": torch.float32,
            "embeddings.word_embeddings.weight": torch.float32,
        }


def _gathered(rank: int, world_size: int, path: Path) -> dict[str, torch.dtype]:
    """Types of parameters while their modules compute."""
    quiet()
    encoder, seen = make_encoder(path, torch.float32), dict[str, torch.dtype]()
    for name, module in encoder.named_modules():
        short = name.removeprefix("backbone.").removeprefix("encoder.")
        if short in (
            "layer.0.attention.self.query",
            "layer.0.attention.output.LayerNorm",
            "embeddings.word_embeddings",
        ):
            module.register_forward_hook(
                lambda module, arguments, output, short=short: seen.update(
                    {f"{short}.weight": module.weight.dtype}
                )
            )
    world: dict[str, Any] = {"rank": rank, "world_size": world_size}
    module, batches = make_step(encoder, InFloat32(), 12, strategy=STRATEGIES["fsdp"], **world)
    fit(module, batches, world_size, precision="bf16-mixed")
    return seen


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "bf16-true"])
def test_labels_stay_as_they_are_under_deepspeed(precision: Any) -> None:
    """DeepSpeed has no fp16 on a CPU, so no step is made here."""
    strategy = DeepSpeed().lightning_strategy(
        accelerator="cpu", num_processes=2, num_nodes=1, clip_norm=None
    )
    assert not isinstance(strategy, str)
    strategy.precision_plugin = DeepSpeedPrecision(precision)  # as the trainer does
    assert strategy.precision_plugin.precision == precision
    labels = torch.tensor([0.1])
    assert strategy.precision_plugin.convert_input({"labels": labels})["labels"] is labels


def test_the_loss_is_in_float32_where_weights_are_not(tiny_bert: Path) -> None:
    for state in run(_train, 2, tiny_bert, "deepspeed_stage_1", "bf16-true", 1)[0]:
        assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


def _evaluation(rank: int, world_size: int, path: Path, strategy: str) -> bool:
    quiet()
    strategy = STRATEGIES[strategy]
    encoder = make_encoder(path, torch.float32)
    module, batches = make_step(
        encoder, InFloat32(), 12, rank=rank, world_size=world_size, strategy=strategy
    )
    trainer = fit(module, batches, world_size, precision="bf16-mixed")
    with trainer.precision_plugin.forward_context():
        return torch.is_autocast_enabled("cpu") and not torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("strategy", ["ddp", "deepspeed_stage_1"])
def test_evaluation_autocasts_as_training_does(tiny_bert: Path, strategy: str) -> None:
    assert all(run(_evaluation, 2, tiny_bert, strategy))


@pytest.mark.parametrize("norm", [float("inf"), torch.tensor(2.0, dtype=torch.float64)])
def test_the_norm_of_a_skipped_step_lies_with_the_others(norm: Any) -> None:
    """DeepSpeed gives a float where it skips a step."""
    engine = SimpleNamespace(get_global_grad_norm=lambda: norm)
    device = SimpleNamespace(root_device=torch.device("meta"))
    trainer: Any = SimpleNamespace(model=engine, strategy=device)
    found = DeepSpeed().gradient_norm(trainer)
    assert found is not None
    assert (found.device.type, found.dtype) == ("meta", torch.float32)
