"""Ranks whose parameters are in shards, of which some run out of memory while the others wait for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from helpers import keystone
from helpers.distributed import run
from helpers.keystone import LOSSES, distributed, make_encoder, quiet, reference, relative_error
from helpers.shortage import ERRORS, Fails, Shortage
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.losses.softmax import ring
from inbatch.step import loss_gradient
from inbatch.strategies import FSDP

ROWS = 12
LAYER = "encoder.layer.0.output.dense"  # with others before and behind it
LOSS: dict[str, tuple[Any, str]] = {
    "loss": (loss_gradient, "loss_gradient"),
    "ring": (ring, "add_product"),
}


def at(*numbers: int) -> Fails:
    return lambda number: number in numbers


def always(number: int) -> bool:
    return True


class Case(NamedTuple):
    """A run of two steps; without shortage each has four chunks on each rank."""

    keep_gib: float | None
    fails: Mapping[str, Fails]  # by place, on rank 1
    also: Mapping[str, Fails] = MappingProxyType({})  # on rank 0
    layer: str = LAYER
    accumulate: int = 1
    reshards: bool = True
    same_chunks: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


# Calls that fail by number; each attempt counts on.
CASES = {
    "first forward": Case(0, {"embed": at(1)}),
    "last forward of step 2": Case(0, {"embed": at(8)}),
    "embeddings": Case(0, {"embed": at(2)}, layer="embeddings.word_embeddings"),
    "last layer, twice": Case(0, {"embed": at(2, 3)}, layer="encoder.layer.1.output.dense"),
    "one after the other": Case(0, {"embed": at(2)}, {"embed": at(5)}),
    "kept graph": Case(None, {"forward": at(3)}, same_chunks=True),
    "last second forward": Case(0, {"forward": at(4)}, {"embed": at(1)}),
    "last backward": Case(0, {"backward": at(4)}),
    "last backward of the last layer": Case(
        0, {"backward": at(8)}, layer="encoder.layer.1.output.dense"
    ),
    "last backward of a kept graph": Case(
        None, {"backward": at(4)}, {"backward": at(2)}, same_chunks=True
    ),
    "loss": Case(None, {"loss": at(1)}, same_chunks=True),
    "loss without graphs": Case(0, {"loss": at(1, 2)}),
    "all at once": Case(None, {"forward": at(2), "loss": at(1), "backward": at(1, 3)}),
    "loss in a ring": Case(
        None, {"ring": at(2), "backward": at(4)}, same_chunks=True, options={"gather": "ring"}
    ),
    "accumulated": Case(0, {"embed": at(6), "backward": at(7)}, accumulate=2),
    "accumulated and kept": Case(
        None, {"backward": at(7)}, {"forward": at(3)}, accumulate=2, same_chunks=True
    ),
    "accumulated in bf16": Case(
        None,
        {"backward": at(6)},
        {"backward": at(6)},
        accumulate=2,
        same_chunks=True,
        options={"precision": "bf16-mixed"},
    ),
    "gathered units": Case(0, {"embed": at(3), "backward": at(2)}, reshards=False),
}


def starve(monkey: pytest.MonkeyPatch, fails: Mapping[str, Fails], layer: str = LAYER) -> None:
    """Let the encoder of the next run fail, and its loss."""
    encoders: list[Encoder] = []

    def make(*args: Any, **options: Any) -> Encoder:
        encoders.append(make_encoder(*args, **options))
        if len(encoders) == 1:  # the second one is the guide
            passes = {place: of for place, of in fails.items() if place not in LOSS}
            Shortage(_module(encoders[0], layer), **passes)  # type: ignore[arg-type]
        return encoders[-1]

    monkey.setattr(keystone, "make_encoder", make)
    for place, (owner, name) in LOSS.items():
        if place in fails:
            monkey.setattr(owner, name, _starved(getattr(owner, name), fails[place]))


def _module(encoder: Encoder, name: str) -> nn.Module:
    return encoder.backbone.get_submodule(name)


def _starved(whole: Callable[..., Any], fails: Fails) -> Callable[..., Any]:
    count = [0]

    def call(*args: Any, **options: Any) -> Any:
        count[0] += 1
        if fails(count[0]):
            raise ERRORS["allocator"]
        return whole(*args, **options)

    return call


def _train(rank: int, world_size: int, path: Path, names: list[str]) -> dict[str, Any]:
    quiet()
    found = {}
    enough: dict[str, dict[str, Tensor]] = {}  # runs without shortage, which cases share
    for name in names:
        case = CASES[name]
        with pytest.MonkeyPatch.context() as monkey:
            starve(monkey, (case.also, case.fails)[rank], case.layer)
            found[name] = _fit(rank, world_size, path, case)
        if case.same_chunks:
            whole = case._replace(fails={}, also={}, layer=LAYER)
            if str(whole) not in enough:
                enough[str(whole)] = _fit(rank, world_size, path, whole)
            wanted = enough[str(whole)]
            same = all(torch.equal(wanted[key], found[name][key]) for key in wanted)
            assert same, name
    return found


def _fit(rank: int, world_size: int, path: Path, case: Case) -> dict[str, Tensor]:
    return distributed(
        *(rank, world_size, path, FSDP(timeout_s=30.0, reshard_after_forward=case.reshards)),
        LOSSES["gist"],
        num_rows=ROWS,
        dtype=torch.float32,
        chunk_rows=5,
        keep_gib=case.keep_gib,
        accumulate=case.accumulate,
        num_steps=2 * case.accumulate,
        **case.options,
    )


# One or two of each place, kept graphs and accumulated steps among them; the others take half a minute.
FIRST = (
    *("last forward of step 2", "one after the other", "last second forward", "loss"),
    *("last backward of a kept graph", "loss in a ring", "accumulated in bf16"),
)


@pytest.mark.parametrize(
    "names",
    [
        FIRST,
        pytest.param([name for name in CASES if name not in FIRST], marks=pytest.mark.exhaustive),
    ],
    ids=["first", "others"],
)
def test_the_update_is_that_of_ranks_with_enough_memory(
    tiny_bert: Path, capfd: pytest.CaptureFixture[str], names: Collection[str]
) -> None:
    found = run(_train, 2, tiny_bert, list(names))[0]
    start = {
        n: p.detach().clone() for n, p in make_encoder(tiny_bert, torch.float32).named_parameters()
    }
    wanted = reference(tiny_bert, LOSSES["gist"], ROWS, 2, torch.float32)
    errors = {name: relative_error(each, wanted, start) for name, each in found.items()}
    # In 16 bits it is compared with a run with enough memory alone.
    errors.pop("accumulated in bf16", None)
    assert max(errors.values()) <= 5e-6, errors
    said = [line for line in capfd.readouterr().out.splitlines() if "out of memory" in line]
    assert all(line.startswith("out of memory on rank ") for line in said)
    assert len(said) >= len(names)


def _end(rank: int, world_size: int, path: Path) -> list[str]:
    """Nothing is left to lower on rank 1."""
    quiet()
    messages = []
    for keep_gib, place in ((0, "embed"), (0, "forward"), (None, "backward"), (None, "loss")):
        with pytest.MonkeyPatch.context() as monkey:
            if rank == 1:
                starve(monkey, {place: always})
            with pytest.raises(ConfigError) as caught:
                _fit(rank, world_size, path, Case(keep_gib, {}))
        messages.append(str(caught.value))
    return messages


def test_the_end_is_the_same_advice_on_all_ranks(tiny_bert: Path) -> None:
    for *passes, loss in run(_end, 2, tiny_bert):
        for message in passes:
            assert message.startswith("gradcache runs out of memory with chunks of up to ")
            assert "encoder.gradient_checkpointing=true" in message
        assert loss.startswith("global_batch_size=12 does not fit in memory in the loss")
