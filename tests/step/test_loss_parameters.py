"""What losses train: its names, its gradients, and its way through steps and runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from helpers.keystone import (
    OF_LOSS,
    fit,
    make_encoder,
    make_source,
    make_step,
    reference,
    relative_error,
    start_of,
)
from helpers.projected_loss import Projected
from inbatch.data.collate import MIXED
from inbatch.errors import ConfigError
from inbatch.losses import (
    EmbeddingMSE,
    Loss,
    Matryoshka,
    MultipleNegativesRanking,
    WeightedSum,
)
from inbatch.losses.temperature import learned_temperatures
from inbatch.optim import parameter_groups
from inbatch.step.contrastive_step import ContrastiveStep
from inbatch.step.loss_parameters import LossParameters

LEARNED = MultipleNegativesRanking(temperature="learned")


def made(losses: Loss | Mapping[str, Loss]) -> LossParameters:
    return LossParameters(losses, dim=32, guide_dim=None, like=torch.zeros(1))


def test_one_loss_has_one_set_and_losses_by_source_have_their_own() -> None:
    assert [name for name, _ in made(LEARNED).named_parameters()] == ["log_scale"]
    shared = made({"a": LEARNED, MIXED: LEARNED})
    assert [name for name, _ in shared.named_parameters()] == ["log_scale"]
    own = made({"a.b": LEARNED, "c": Projected(), "d": MultipleNegativesRanking()})
    assert [name for name, _ in own.named_parameters()] == [
        "a_b/log_scale",
        "c/projection",
        "c/number",
    ]
    assert {k: v.shape for k, v in own.of("c").items()} == {"projection": (32, 3), "number": (1,)}
    assert own.of("d") == {}
    assert made(MultipleNegativesRanking()).is_empty


def test_names_that_checkpoints_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="source 'a_b' has a loss that trains parameters, and but for"
    ):
        made({"a.b": LEARNED, "a_b": LEARNED})


def test_first_values_follow_the_seed_and_differ() -> None:
    def first(seed: int) -> list[torch.Tensor]:
        losses = {"a": EmbeddingMSE(projection=True), "b": EmbeddingMSE(projection=True)}
        like = torch.zeros(1)
        found = LossParameters(losses, dim=8, guide_dim=4, like=like, seed=seed)
        return [p.detach().flatten() for p in found.parameters()]

    one, two = first(1), first(2)
    assert all(torch.equal(a, b) for a, b in zip(one, first(1)))
    assert not any(torch.equal(a, b) for a, b in zip(one, two))
    assert not torch.equal(one[0], one[2])  # of the two sources
    assert not torch.equal(one[0][:4], one[1])  # of weight and bias


def test_a_part_of_a_sum_shows_its_learned_temperature() -> None:
    loss = WeightedSum([LEARNED, Matryoshka(LEARNED, dims=[32, 8])])
    found = learned_temperatures(made({"a.b": loss}).of("a.b"))
    assert found == {
        "MultipleNegativesRanking/learned_temperature": pytest.approx(0.05),
        "Matryoshka/learned_temperature": pytest.approx(0.05),
    }
    assert learned_temperatures(made(LEARNED).of("x")).keys() == {"learned_temperature"}


def test_matryoshka_shares_what_has_one_shape() -> None:
    found = made(Matryoshka(Projected(), dims=[32, 8]))
    shapes = {name: tuple(p.shape) for name, p in found.named_parameters()}
    assert shapes == {"projection_dim_32": (32, 3), "projection_dim_8": (8, 3), "number": (1,)}
    assert [n for n, _ in made(Matryoshka(LEARNED, dims=[32, 8])).named_parameters()] == [
        "log_scale"
    ]


def test_gradients_of_other_sources_are_zeros() -> None:
    own = made({"a": LEARNED, "b": Projected()})
    own.pull("a", {"log_scale": torch.tensor([2.0])}).backward()
    grads = {name: p.grad for name, p in own.named_parameters()}
    assert grads["a/log_scale"] is not None
    assert grads["b/projection"] is not None
    assert grads["a/log_scale"].item() == 2.0
    assert not grads["b/projection"].any()


def test_they_have_no_weight_decay_and_may_have_a_rate_of_their_own() -> None:
    own = made(LEARNED)
    (group,) = parameter_groups(
        own.named_parameters(prefix="loss_parameters"), learning_rate_mapping={"log_scale": 0.5}
    )
    assert (group["weight_decay"], group["lr"]) == (0.0, 0.5)


@pytest.mark.parametrize("name", ["projected", "matryoshka"])
def test_steps_are_those_of_one_backward(tiny_bert: Path, name: str) -> None:
    loss = {"projected": Projected(), "matryoshka": Matryoshka(Projected(), dims=[32, 8])}[name]
    encoder = make_encoder(tiny_bert, torch.float64)
    module, batches = make_step(encoder, loss, 12, num_steps=2, chunk_rows=5, keep_gib=0)
    fit(module, batches, 1)
    found = {name: p.detach() for name, p in module.encoder.named_parameters()} | {
        f"{OF_LOSS}{key}": value for key, value in module.loss_parameters.of("rows").items()
    }
    wanted = reference(tiny_bert, loss, 12, 2, torch.float64)
    assert relative_error(found, wanted, start_of(tiny_bert, loss, torch.float64)) <= 1e-10


def test_a_bare_loop_trains_them(tiny_bert: Path) -> None:
    encoder = make_encoder(tiny_bert, torch.float64).train()
    step = ContrastiveStep(encoder, MultipleNegativesRanking(temperature="learned"), keep_gib=0)
    texts = make_source(LEARNED, 12).read(range(12))[0]
    columns = dict(zip(("query", "positive", "negative"), texts, strict=True))
    output = step(step.collate(columns, chunk_rows=5), position=0, size=2)
    step(step.collate(columns, chunk_rows=5), position=1, size=2)
    (log_scale,) = step.loss_parameters.parameters()
    once = ContrastiveStep(encoder, LEARNED)
    once(once.collate(columns))
    assert log_scale.grad is not None
    torch.testing.assert_close(log_scale.grad, next(once.loss_parameters.parameters()).grad)
    torch.testing.assert_close(float(output.metrics["temperature"]), 0.05)
    log_scale.data.fill_(9.0)
    step.loss_parameters.clamp()
    torch.testing.assert_close(log_scale.exp().item(), 100.0)
