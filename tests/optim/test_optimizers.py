"""Every `conf/optimizer` and `conf/schedule` builds and trains; fused kernels are chosen right."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, get_method, instantiate
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from omegaconf import OmegaConf
from torch import nn

from inbatch.optim import adam, adamw, parameter_groups

CONF = Path(__file__).parents[2] / "conf"
OPTIMIZERS = sorted((CONF / "optimizer").glob("*.yaml"))
SCHEDULES = sorted((CONF / "schedule").glob("*.yaml"))
SETTINGS: dict[str, Any] = {"lr": 0.1, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1)).requires_grad_()


def train(optimizer: torch.optim.Optimizer, model: nn.Module, *, steps: int = 20) -> list[float]:
    inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(steps):
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda path: path.stem)
def test_optimizer_yaml_trains(path: Path) -> None:
    model = small_model()
    build = instantiate(OmegaConf.load(path), lr=1e-2, weight_decay=0.01)
    optimizer = build(parameter_groups(model.named_parameters()))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01, 0.0}
    losses = train(optimizer, model)
    assert losses[-1] < 0.99 * losses[0]
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=True)  # holds plain values only


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda path: path.stem)
def test_optimizer_yaml_sets_what_users_know(path: Path) -> None:
    config = OmegaConf.load(path)
    assert {"_target_", "_partial_", "lr", "weight_decay"} <= set(config)
    target = (
        get_method(config._target_) if "inbatch" in config._target_ else get_class(config._target_)
    )
    keys = {key for key in config if not key.startswith("_")}
    assert keys <= set(inspect.signature(target).parameters)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_schedule_yaml(path: Path) -> None:
    config = OmegaConf.load(path)
    schedule = instantiate(config)
    assert all(0.0 <= schedule.factor(step, 40) <= 1.0 for step in range(41))
    assert max(schedule.factor(step, 40) for step in range(41)) == 1.0
    keys = {key for key in config if not key.startswith("_")}
    assert keys <= set(inspect.signature(type(schedule)).parameters)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(("build", "kind"), [(adamw, torch.optim.AdamW), (adam, torch.optim.Adam)])
def test_fused_equals_torch(build: Any, kind: Any) -> None:
    ours, theirs = small_model(), small_model()
    optimizer = build(parameter_groups(ours.named_parameters()), **SETTINGS)
    assert type(optimizer) is kind
    assert optimizer.defaults["fused"] is True
    reference = kind(parameter_groups(theirs.named_parameters()), foreach=False, **SETTINGS)
    assert train(optimizer, ours) == pytest.approx(train(reference, theirs), rel=1e-4)


def test_fused_is_a_choice() -> None:
    groups = parameter_groups(small_model().named_parameters())
    assert adamw(groups, **SETTINGS, fused=False).defaults["fused"] is False
    meta = parameter_groups(small_model().to("meta").named_parameters())
    assert adamw(meta, **SETTINGS).defaults["fused"] is False


def test_gradients_are_unscaled_before_a_fused_step() -> None:
    """Clipping between `unscale_` and the step sees true gradients; the step rescales none."""
    optimizers, models = [], []
    for _ in range(2):
        models.append(small_model())
        optimizers.append(adamw(parameter_groups(models[-1].named_parameters()), **SETTINGS))
    assert not _optimizer_handles_unscaling(optimizers[0])
    inputs = torch.randn(4, 8)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    models[0](inputs).square().mean().backward()
    scaler.scale(models[1](inputs).square().mean()).backward()
    scaler.unscale_(optimizers[1])
    for model in models:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizers[0].step()
    scaler.step(optimizers[1])
    for plain, scaled in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(plain, scaled)
