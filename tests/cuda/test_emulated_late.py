"""What the host learns only after a step: whether its gradient was finite, and what other ranks sent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.emulated_cuda.process import group, on_gpu, on_gpus
from helpers.keystone import quiet
from helpers.runs import run_train, write_triplets
from inbatch.errors import ConfigError
from inbatch.gather import PendingMax
from inbatch.step.finite import FiniteWatch, NonFiniteGradient, Place

pytestmark = group


def diverges(folder: Path, options: list[str]) -> None:
    quiet()
    wild = ["optimizer.lr=1e20", "clip_norm=null", "trainer.accelerator=cuda"]
    with pytest.raises(ConfigError, match=r"^training diverged at step 2: "):
        run_train(*options, *wild, f"output_dir={folder}")
    assert not (folder / "model").exists()
    assert not list((folder / "checkpoints").glob("*.ckpt"))


@pytest.mark.parametrize("every", ["null", "2"])
def test_a_run_that_diverges_saves_nothing_of_it(tmp_path: Path, every: str) -> None:
    """Seen a step later, or at the pause in between."""
    rows = write_triplets(tmp_path / "rows.jsonl", 48)
    options = [f"data.train={rows}", "global_batch_size=8", f"checkpoint.every_n_steps={every}"]
    on_gpu(diverges, tmp_path / "run", options)


def watches() -> None:
    watch = FiniteWatch()
    one, bad = torch.ones((), device="cuda"), torch.full((), torch.nan, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    assert watch.may_step(one, (), Place(1, 0, "rows"))
    assert watch.may_step(bad, (), Place(2, 1, "rows"))
    with pytest.raises(NonFiniteGradient) as found:
        watch.may_step(one, (), Place(3, 2, "rows"))
    assert found.value.place.step == 2


def test_a_norm_is_read_when_it_has_arrived() -> None:
    on_gpu(watches)


def sends(rank: int, world_size: int) -> tuple[int, int]:
    torch.distributed.init_process_group("nccl")
    torch.cuda.set_device(rank)
    device = torch.device("cuda", rank)
    torch.cuda.set_sync_debug_mode("error")
    first, second = PendingMax(rank, device), PendingMax(10 - rank, device)
    return first.wait(), second.wait()


def test_ranks_agree_without_waiting_for_their_devices() -> None:
    assert on_gpus(sends, 2) == [(1, 10)] * 2
