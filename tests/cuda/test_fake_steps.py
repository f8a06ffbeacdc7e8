"""Whole steps of every architecture and loss on a CUDA device without values, and with them.

On fake tensors, whatever mixes devices raises, and so does whatever needs a value on the host. Shapes,
dtypes and devices are those of CUDA's kernels, flash attention's among them. On an emulated device the same
steps are computed, and operators that wait are refused there too, since transformers does not ask a tensor
without values whether it masks anything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionMaskInterface

from helpers.emulated_cuda.process import group, on_gpu
from helpers.keystone import CONF, LOSSES
from helpers.tiny import tiny_texts
from inbatch.batch.batch import Batch
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.pooling import POOLING_MODES
from inbatch.gradcache.rng import RngState
from inbatch.guide import LiveGuide
from inbatch.losses import MultipleNegativesRanking
from inbatch.losses.base import Loss, LossInput, LossOutput
from inbatch.step.contrastive_step import ContrastiveStep

pytestmark = group

ROWS = 6
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {"hidden_dim": 64, "intermediate_size": None},
    "modernbert": {"local_attention": 4, "num_hidden_layers": 2},  # all tokens, and a window
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
}
PACKED = ("bert", "distilbert", "roberta", "nomic_bert", "modernbert")
PADDED = (*((name, "sdpa") for name in PACKED), ("mpnet", "auto"), ("qwen3", "auto"))
OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("bert", "auto", {"gradient_checkpointing": True}),
    (
        "bert",
        "auto",
        {"pooling": [*POOLING_MODES], "dense": {"out_features": 8}, "normalize": True},
    ),
]
How = Literal["fake", "computed"]


def make(model_type: str, attention: str = "auto", **options: Any) -> Encoder:
    config = {**SIZES, "model_type": model_type, **OWN_SIZES.get(model_type, {})}
    encoder = build_encoder(
        config={key: value for key, value in config.items() if value is not None},
        tokenizer={"train": {"vocab_size": 120}},
        texts=lambda: tiny_texts(60),
        attention=attention,
        **options,
    )
    return encoder.to("cuda").train()


def columns_for(loss: Loss) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: tiny_texts(ROWS, seed=seed) for seed, name in enumerate(("query", "positive"))
    }
    if loss.needs_labels:
        columns["label"] = [float(i % 2) for i in range(ROWS)]
    elif loss.max_columns is None or loss.max_columns > 2:
        columns["negative"] = tiny_texts(ROWS, seed=3)
    if loss.needs_scores:
        columns |= {f"{role}_score": [0.5] * ROWS for role in ("positive", "negative")}
    return columns


def take_step(how: How, encoder: Encoder, loss: Loss, *, optimizer_name: str = "adamw") -> None:
    """Embed two chunks twice, clip the gradients, and let the optimizer take its step."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    if how == "fake":
        fake_weights(encoder, fake)
        torch.Tensor.pin_memory = lambda tensor: tensor  # without memory there are no pages
        RngState.is_state_of = lambda state, other: False  # compares values, on the CPU
    guide = LiveGuide(encoder) if loss.needs_guide else None
    step = ContrastiveStep(encoder, loss, guide=guide, keep_gib=0, seed=1)
    encoder.requires_grad_().train()  # also where it is its own guide
    batch = step.collate(columns_for(loss), chunk_rows=9)
    parameters = [*encoder.parameters()]
    make_optimizer = instantiate(OmegaConf.load(CONF / "optimizer" / f"{optimizer_name}.yaml"))
    optimizer = make_optimizer([{"params": parameters}])
    with fake if how == "fake" else nullcontext():
        batch = fake_batch(batch, fake) if how == "fake" else batch
        torch.cuda.set_sync_debug_mode("error")
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            output = step(batch)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        torch.cuda.set_sync_debug_mode("default")
        optimizer.step()  # makes its state
        torch.cuda.set_sync_debug_mode("error")
        optimizer.step()
        torch.cuda.set_sync_debug_mode("default")
    assert {t.device for t in (output.loss, *output.metrics.values())} == {step.process.device}
    assert all(p.grad is not None and p.grad.device == p.device for p in parameters)


def fake_weights(encoder: Encoder, fake: FakeTensorMode) -> None:
    for module in encoder.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            setattr(module, name, torch.nn.Parameter(fake.from_tensor(parameter.detach())))
        for name, buffer in [*module.named_buffers(recurse=False)]:
            setattr(module, name, fake.from_tensor(buffer))


def fake_batch(batch: Batch, fake: FakeTensorMode) -> Batch:
    return batch._replace(
        chunks=tuple(chunk.map(fake.from_tensor) for chunk in batch.chunks),
        guide_chunks=tuple(chunk.map(fake.from_tensor) for chunk in batch.guide_chunks),
        labels=None if batch.labels is None else fake.from_tensor(batch.labels),
        scores=None if batch.scores is None else fake.from_tensor(batch.scores),
    )


def failures(steps: dict[str, Callable[[], None]]) -> dict[str, str]:
    found = {}
    for name, take in steps.items():
        try:
            take()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        torch.cuda.set_sync_debug_mode("default")
    return found


def architectures(how: How) -> dict[str, str]:
    loss = MultipleNegativesRanking()
    cases = [*((name, "auto", {}) for name in PACKED), *((*case, {}) for case in PADDED), *OTHERS]
    found = failures(
        {
            f"{name} {attention} {options}": lambda case=(name, attention), more=options: take_step(
                how, make(*case, **more), loss
            )
            for name, attention, options in cases
        }
    )
    kernels = " ".join(torch.ops.emulated_cuda.kernels())
    assert ("_flash_attention_backward" in kernels) == (how == "computed")
    return found


@pytest.mark.parametrize("how", [pytest.param("fake", marks=pytest.mark.exhaustive), "computed"])
def test_every_architecture(how: How) -> None:
    """Without padding where there is a kernel for it, and padded; with all that may follow it."""
    assert on_gpu(architectures, how) == {}


def every_loss(how: How) -> dict[str, str]:
    return failures(
        {
            name: lambda loss=loss: take_step(how, make("bert"), loss)
            for name, loss in LOSSES.items()
        }
    )


@pytest.mark.parametrize("how", ["fake", "computed"])
def test_every_loss(how: How) -> None:
    assert on_gpu(every_loss, how) == {}


def every_optimizer(how: How) -> dict[str, str]:
    loss, names = MultipleNegativesRanking(), [p.stem for p in (CONF / "optimizer").glob("*.yaml")]
    assert "adamw" in names
    return failures(
        {
            name: lambda name=name: take_step(how, make("bert"), loss, optimizer_name=name)
            for name in names
        }
    )


def test_every_optimizer() -> None:
    assert on_gpu(every_optimizer, "computed") == {}


class Waits(MultipleNegativesRanking):
    """Asks for the value of the loss."""

    def __call__(self, inputs: LossInput) -> LossOutput:
        output = super().__call__(inputs)
        assert output.loss.item() >= 0
        return output


class Mixes(MultipleNegativesRanking):
    """Has a tensor on the CPU."""

    def __call__(self, inputs: LossInput) -> LossOutput:
        output = super().__call__(inputs)
        return output._replace(loss=(inputs.columns[0] @ torch.ones(32)).mean())


def controls(how: How) -> dict[str, str]:
    left_behind = make("bert")
    left_behind.backbone.encoder.layer[0].output.to("cpu")
    mnrl = MultipleNegativesRanking()
    return failures(
        {
            "waits": lambda: take_step(how, make("bert"), Waits()),
            "mixes": lambda: take_step(how, make("bert"), Mixes()),
            "left on the CPU": lambda: take_step(how, left_behind, mnrl),
        }
    )


@pytest.mark.parametrize("how", ["fake", "computed"])
def test_what_must_fail(how: How) -> None:
    found = on_gpu(controls, how)
    waits = "DataDependentOutput" if how == "fake" else "called a synchronizing CUDA operation"
    assert waits in found["waits"]
    assert "cpu" in found["mixes"]
    assert "cpu" in found["left on the CPU"]


def masks() -> bool:
    before = [AttentionMaskInterface()[name] for name in ("sdpa", "eager")]
    take_step("computed", make("bert", "sdpa"), MultipleNegativesRanking())
    return before == [AttentionMaskInterface()[name] for name in ("sdpa", "eager")]


def test_transformers_makes_masks_as_before_outside_of_a_step() -> None:
    assert on_gpu(masks)
