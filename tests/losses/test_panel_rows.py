"""How many rows a panel has, by device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from inbatch.losses.softmax.walk import panel_rows

GPUS = {"H200": (50, 141), "A100": (40, 80), "RTX 4090": (72, 24)}  # MiB of cache, GiB


@pytest.mark.parametrize(
    ("gpu", "candidates", "rows"),
    [
        ("H200", 2048, 800),  # 32 KiB a row, within half of the cache
        ("H200", 4096, 400),
        ("H200", 8192, 2048),  # too few would be
        ("H200", 65536, 2048),
        ("H200", 1 << 20, 141),
        ("A100", 65536, 1280),
        ("RTX 4090", 4096, 576),
        ("RTX 4090", 65536, 384),
        ("RTX 4090", 1 << 20, 128),
    ],
)
def test_rows_of_four_blocks_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpu: str, candidates: int, rows: int
) -> None:
    cache, memory = GPUS[gpu]
    found = SimpleNamespace(L2_cache_size=cache << 20, total_memory=memory << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    device = torch.device("cuda", 0)
    assert panel_rows(device, candidates * 4 * 4, panel_bytes=None) == rows
    assert panel_rows(device, candidates * 4 * 4, panel_bytes=1) == 128


def test_rows_on_a_cpu_and_as_asked_for() -> None:
    cpu = torch.device("cpu")
    assert [panel_rows(cpu, size, panel_bytes=None) for size in (1, 1 << 16, 1 << 30)] == [
        512,
        256,
        16,
    ]
    assert panel_rows(cpu, 1 << 16, panel_bytes=1 << 22) == 64
