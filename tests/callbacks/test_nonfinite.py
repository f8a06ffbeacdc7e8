"""The look at the weights before a run is evaluated or saved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from inbatch.callbacks.nonfinite import NonFinite
from inbatch.losses import MultipleNegativesRanking
from inbatch.step.finite import NonFiniteGradient, Place
from inbatch.step.loss_parameters import LossParameters


def test_what_a_loss_trains_is_looked_at_too() -> None:
    loss = MultipleNegativesRanking(temperature="learned")
    trained = LossParameters(loss, dim=4, guide_dim=None, like=torch.zeros(1))
    module = SimpleNamespace(
        encoder=nn.Linear(2, 2),
        loss_parameters=trained,
        place=Place(3, 2, "train"),
        watch=SimpleNamespace(settle=lambda: None),
    )
    trainer: Any = SimpleNamespace(lightning_module=module, world_size=1)
    NonFinite().on_pause(trainer, "save")
    next(trained.parameters()).data.fill_(torch.nan)
    with pytest.raises(NonFiniteGradient):
        NonFinite().on_pause(trainer, "save")
