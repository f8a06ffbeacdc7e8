"""Integers that ranks agree on while they go on working."""

from __future__ import annotations

import pytest
import torch

from helpers import distributed
from inbatch.gather import PendingMax


def _send_two_then_wait(rank: int, world_size: int) -> tuple[int, int]:
    distributed.gloo()
    first = PendingMax(rank, torch.device("cpu"))
    second = PendingMax(10 - rank, torch.device("cpu"))
    return first.wait(), second.wait()


def test_every_rank_gets_the_largest() -> None:
    assert distributed.run(_send_two_then_wait, 3) == [(2, 10)] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_sending_does_not_wait_for_the_device() -> None:
    port = distributed.free_port()
    store = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("nccl", init_method=store, rank=0, world_size=1)
    try:
        device = torch.device("cuda", 0)
        PendingMax(1, device).wait()  # the first collective makes the communicator
        torch.cuda._sleep(2_000_000_000)  # cycles: most of a second on the stream
        busy = torch.cuda.Event()
        busy.record()
        sent = PendingMax(7, device)
        assert not busy.query()
        assert sent.wait() == 7
    finally:
        torch.distributed.destroy_process_group()
