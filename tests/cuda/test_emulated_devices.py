"""The emulated devices themselves: what they refuse, and what they have of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch.nn.functional import dropout

from helpers.emulated_cuda.library import library
from helpers.emulated_cuda.process import group, on_gpu, on_gpus
from inbatch.encoder.varlen import TextLengths, packed_attention, per_text_attention

pytestmark = group


def test_the_library_is_built_once() -> None:
    path = library()
    built = path.stat().st_mtime_ns
    assert library() == path
    assert path.stat().st_mtime_ns == built


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    for in_ci, outcome in (("true", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv("CI", in_ci)
        with pytest.raises(outcome, match=r"there is no C\+\+ compiler: install g\+\+"):
            library()


def mixes() -> None:
    here, there, host = (torch.ones(3, device=device) for device in ("cuda:0", "cuda:1", "cpu"))
    for other in (there, host):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            here + other
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.nn.functional.embedding(torch.tensor([0]), here[:, None])
    assert (here * torch.tensor(2.0)).tolist() == [2.0] * 3  # a number of the host may mix in
    assert here[torch.tensor([0, 1])].device == here.device
    assert torch.zeros(1, device="cuda").device.index == torch.cuda.current_device() == 0


def test_devices_do_not_mix() -> None:
    on_gpu(mixes)


def runs_out() -> None:
    devices = torch.ops.emulated_cuda
    kept = torch.zeros(1 << 18, device="cuda")
    assert torch.cuda.memory_allocated() == 1 << 20
    devices.set_cap(0, 3 << 20)
    assert torch.cuda.mem_get_info()[0] == 2 << 20
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.cat([kept, kept, kept])
    kept.cos().cos()
    assert torch.cuda.max_memory_allocated() == 3 << 20
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == 1 << 20


def test_memory_runs_out_at_the_cap() -> None:
    on_gpu(runs_out)


def draws() -> None:
    ones = torch.ones(64, device="cuda")
    host, device = torch.get_rng_state(), torch.cuda.get_rng_state()
    first = dropout(ones)
    torch.set_rng_state(host)  # the CPU's numbers have nothing to do with it
    assert not torch.equal(dropout(ones), first)
    torch.cuda.set_rng_state(device)
    assert torch.equal(dropout(ones), first)
    torch.manual_seed(1)
    drawn = torch.rand(4, device="cuda")
    assert not torch.equal(drawn.cpu(), torch.rand(4))
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(4, device="cuda"))


def test_random_numbers_are_the_devices_own() -> None:
    on_gpu(draws)


def arrives_late() -> None:
    value = torch.ones(3, device="cuda")
    arrived = torch.cuda.Event()
    copy = value.to("cpu", non_blocking=True)
    arrived.record()
    assert copy.isnan().all()
    arrived.synchronize()
    assert copy.tolist() == [1.0] * 3


def test_a_copy_has_arrived_once_it_was_waited_for() -> None:
    on_gpu(arrives_late)


WAITS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).any()),
    "to the host": lambda x: x.cpu(),
    "to the device": lambda x: x + torch.ones(3).to(x.device),
    "from pageable memory": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "by a mask": lambda x: x[x > 0],
    "by a list": lambda x: x[[0, 1]],
    "nonzero": lambda x: x.nonzero(),
    "repeats": lambda x: torch.repeat_interleave(x.long()),
}


def waits() -> list[str]:
    value = torch.ones(3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    value.to("cpu", non_blocking=True)
    torch.ones(3).pin_memory().to("cuda", non_blocking=True)
    torch.repeat_interleave(value.long(), output_size=3)
    found = []
    for name, wait in WAITS.items():
        with suppress(RuntimeError):
            wait(value)
            continue
        found.append(name)
    return found


def test_operators_that_wait_are_refused_on_demand() -> None:
    assert on_gpu(waits) == [*WAITS]


def attends(reach: int | None) -> None:
    lengths = torch.tensor([1, 13, 7, 30])
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to("cuda", torch.int32)
    texts, options = TextLengths(offsets, 30), {"scale": 0.3, "reach": reach}
    half = [torch.randn(51, 2, 16, device="cuda").bfloat16().requires_grad_() for _ in range(3)]
    full = [part.detach().float().requires_grad_() for part in half]
    found = packed_attention(*half, texts, dropout=0.0, **options)
    wanted = per_text_attention(*full, texts, dropout=0.0, **options)
    torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=1e-2)
    weights = torch.randn_like(wanted)
    (found.float() * weights).sum().backward()
    (wanted * weights).sum().backward()
    for mine, theirs in zip(half, full, strict=True):
        torch.testing.assert_close(mine.grad.float(), theirs.grad, rtol=2e-2, atol=3e-2)
    dropped = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        dropped.append(packed_attention(*half, texts, dropout=0.5, **options))
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[0], dropped[2])
    with pytest.raises(RuntimeError, match="only support fp16 and bf16"):
        packed_attention(*full, texts, dropout=0.1, **options)
    with pytest.raises(RuntimeError, match=r"texts of .* tokens are not those of"):
        packed_attention(*half, TextLengths(offsets, 29), dropout=0.1, **options)


@pytest.mark.parametrize("reach", [None, 3])
def test_flash_attention_is_that_of_each_text(reach: int | None) -> None:
    on_gpu(attends, reach)


def multiplies() -> None:
    left, right = (torch.randn(*shape, device="cuda").bfloat16() for shape in ((3, 5), (5, 4)))
    wanted = left.cpu().float() @ right.cpu().float()
    found = torch.empty(3, 4, device="cuda")
    torch.mm(left, right, out_dtype=torch.float32, out=found)
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-6, atol=1e-6)
    torch.addmm(found, left, right, beta=2, out_dtype=torch.float32, out=found)
    torch.testing.assert_close(found.cpu(), 3 * wanted, rtol=1e-6, atol=1e-5)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.mm(left, right.to("cuda:1"), out_dtype=torch.float32, out=found)


def test_products_of_16_bit_matrices_in_float32() -> None:
    on_gpu(multiplies)


def reduces(rank: int, world_size: int) -> tuple[list[float], list[float]]:
    torch.distributed.init_process_group("nccl")
    torch.cuda.set_device(rank)
    total = torch.full((2,), float(rank + 1), device="cuda")
    assert total.device.index == rank
    torch.distributed.all_reduce(total)
    every = [torch.empty(1, device="cuda") for _ in range(world_size)]
    torch.distributed.all_gather(every, total[:1] + rank)
    return total.tolist(), torch.cat(every).tolist()


def test_ranks_with_a_device_each() -> None:
    assert on_gpus(reduces, 2) == [([3.0, 3.0], [3.0, 4.0])] * 2
