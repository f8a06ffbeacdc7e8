"""Training with a stored guide takes the same steps as with a live one, and never holds the guide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.distributed import run
from helpers.keystone import (
    LR,
    fit,
    make_encoder,
    make_guide,
    make_source,
    quiet,
    reference,
    relative_error,
)
from inbatch import losses
from inbatch.batch.slices import slice_rows
from inbatch.data.collate import Collator
from inbatch.guide import Guide, LiveGuide, StoredGuide
from inbatch.guide.fill import FillSettings
from inbatch.optim import Constant
from inbatch.run.module import BiEncoderModule
from inbatch.step.settings import StepSettings
from inbatch.strategies import DDP, SingleDevice, Strategy

NUM_ROWS, STEPS = 11, 2
LOSS = losses.GIST(temperature=0.05)


def _module(
    rank: int, world_size: int, path: Path, guide: Guide, encoder_dtype: torch.dtype
) -> tuple[BiEncoderModule, list[Any]]:
    encoder = make_encoder(path, encoder_dtype)
    collator = Collator(
        tokenizer=encoder.tokenizer, guide_tokenizer=guide.tokenizer, guide_prompts=guide.prompts
    )
    own = slice_rows(np.arange(NUM_ROWS), rank, world_size)
    batch = collator(make_source(LOSS, NUM_ROWS), own, step=0, num_global_rows=NUM_ROWS)
    strategy: Strategy = SingleDevice() if world_size == 1 else DDP(timeout_s=60)
    module = BiEncoderModule(
        encoder=encoder,
        losses={"rows": LOSS},
        strategy=strategy,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=LR),
        schedule=Constant(),
        guide=guide,
        settings=StepSettings(clip_norm=None),
    )
    return module, [batch._replace(step=step) for step in range(STEPS)]


def _train(
    rank: int, world_size: int, path: Path, folder: Path, mode: str
) -> tuple[dict[str, Tensor], float, float]:
    """Parameters, the last loss, and the share of negatives that the guide left out."""
    quiet()
    encoder = make_guide(path)
    guide: Guide = LiveGuide(encoder)
    if mode != "live":
        guide = StoredGuide(
            encoder,
            [make_source(LOSS, NUM_ROWS)],
            store_dir=folder,
            store_dtype=mode,
            fill=FillSettings(chunk_tokens=256),
        )
    module, batches = _module(rank, world_size, path, guide, torch.float64)
    fit(module, batches, world_size)
    assert module.last_step is not None
    if world_size > 1:
        assert (mode == "live") == (len(batches[0].guide_chunks) > 0)
    share = float(module.last_step.metrics["filtered_share"])
    names = dict(module.encoder.named_parameters())
    return {n: p.detach() for n, p in names.items()}, float(module.last_step.loss), share


@pytest.mark.parametrize("world_size", [1, 2])
def test_stored_equals_live(tiny_bert: Path, tmp_path: Path, world_size: int) -> None:
    results = {
        mode: run(_train, world_size, tiny_bert, tmp_path, mode)
        for mode in ("live", "float32", "float16")
    }
    start = {n: p.detach() for n, p in make_encoder(tiny_bert, torch.float64).named_parameters()}
    wanted = reference(tiny_bert, LOSS, NUM_ROWS, STEPS, torch.float64)
    for mode, limit in (("live", 1e-10), ("float32", 1e-10), ("float16", 1e-10)):
        for rank in range(world_size):
            parameters, loss, share = results[mode][rank]
            assert relative_error(parameters, wanted, start) <= limit, mode
            assert loss == pytest.approx(results["live"][rank][1], rel=limit), mode
            assert 0.05 < share < 0.95  # the guide decides something


def test_ranks_share_the_work(tiny_bert: Path, tmp_path: Path) -> None:
    run(_train, 2, tiny_bert, tmp_path, "float32")
    (table,) = tmp_path.glob("*/prompt-*")
    shards = [np.load(file) for file in table.glob("shard-*/keys.npy")]
    assert len(shards) == 2
    assert {int(keys[0] % 2) for keys in shards} == {0, 1}
    assert len(np.intersect1d(*shards)) == 0
    assert len(list(table.glob("index-*"))) == 1


@pytest.mark.parametrize("mode", ["stored", "live"])
def test_the_guide_is_in_no_module_optimizer_or_checkpoint(
    tiny_bert: Path, tmp_path: Path, mode: str
) -> None:
    encoder = make_encoder(tiny_bert, torch.float32)
    guide: Guide = LiveGuide(encoder)
    if mode == "stored":
        guide = StoredGuide(
            encoder,
            [make_source(LOSS, NUM_ROWS)],
            store_dir=tmp_path / "store",
            fill=FillSettings(chunk_tokens=256),
        )
    module, batches = _module(0, 1, tiny_bert, guide, torch.float32)
    pointers = {p.data_ptr() for p in encoder.state_dict().values()}
    trainer = fit(module, batches, 1)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert not pointers & {tensor.data_ptr() for tensor in module.state_dict().values()}
    (groups,) = [optimizer.param_groups for optimizer in trainer.optimizers]
    held = [p for group in groups for p in group["params"]]
    assert len(held) == len(list(module.encoder.parameters()))
    assert not pointers & {p.data_ptr() for p in held}
    saved = torch.load(tmp_path / "run.ckpt", weights_only=False)
    assert saved["state_dict"].keys() == module.state_dict().keys()
    assert not [name for name in saved["state_dict"] if "guide" in name]
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
