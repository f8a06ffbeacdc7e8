"""Puts the emulated devices behind `torch.cuda`.

A torch without CUDA has all of `torch.cuda`'s Python, but not the functions of `torch._C` below it. Those are
put there, so that the public functions check and convert their arguments as ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch

TOTAL_BYTES = 16 << 30
CAPABILITY = (9, 0)
NAME = "Emulated GPU"


class Event:
    """torch.cuda.Event."""

    def __new__(cls, enable_timing: bool = False, **options: Any) -> Any:
        return torch.Event("cuda", enable_timing=enable_timing, **options)


class Stream:
    """torch.cuda.Stream; all are the one stream of their device."""

    def __new__(cls, device: Any = None, priority: int = 0) -> Any:
        return torch.Stream("cuda" if device is None else device)


def show(number: int) -> None:
    """Make so many of the devices visible, as CUDA_VISIBLE_DEVICES does."""
    cuda: Any = torch.cuda
    cuda.device_count = cuda.random.device_count = lambda: number
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(number)))


def install() -> None:
    """Make `torch.cuda` find the devices of the loaded library, one of them visible."""
    devices = torch.ops.emulated_cuda
    for name, function in _primitives(devices).items():
        setattr(torch._C, name, function)
    cuda: Any = torch.cuda
    cuda._lazy_init = cuda.init = lambda: None
    cuda.is_initialized = cuda.is_available = lambda: True
    show(1)
    cuda.default_generators = tuple(map(devices.generator, range(devices.num_devices())))
    cuda._exchange_device = cuda._maybe_exchange_device = _exchange(devices)
    cuda._get_device_properties = _properties
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.mem_get_info = _mem_get_info(devices)
    cuda.Event, cuda.Stream = Event, Stream
    cuda.current_stream = cuda.default_stream = Stream
    cuda.stream = _stream
    for module in (cuda.memory, cuda.random):  # they have imported these names
        module._lazy_init, module.is_initialized = cuda._lazy_init, cuda.is_initialized
    torch.distributed.init_process_group = _on_gloo(torch.distributed.init_process_group)
    torch.backends.cuda.is_flash_attention_available = lambda: True
    storage: Any = torch.UntypedStorage
    storage.to, storage.cpu = _storage_to, lambda self: _storage_to(self, "cpu")
    storage.resize_ = _resize(storage.resize_)


def _primitives(devices: Any) -> dict[str, Callable[..., Any]]:
    def stats(device: int) -> dict[str, Any]:
        live, peak = devices.live(device), devices.peak(device)
        return {
            f"{kind}_bytes": {"all": {"current": live, "peak": peak}}
            for kind in ("allocated", "reserved")
        }

    return {
        "_cuda_getDeviceCount": devices.num_devices,
        "_cuda_getDevice": devices.device,
        "_cuda_setDevice": devices.set_device,
        "_cuda_synchronize": devices.synchronize,
        "_cuda_emptyCache": lambda: None,
        "_cuda_ipc_collect": lambda: None,
        "_cuda_memoryStats": stats,
        "_cuda_resetPeakMemoryStats": devices.reset_peak,
        "_cuda_set_sync_debug_mode": devices.set_sync_debug_mode,
        "_cuda_get_sync_debug_mode": devices.get_sync_debug_mode,
        "_cuda_isCurrentStreamCapturing": lambda: False,
        "_cuda_getCurrentRawStream": lambda device: 0,
        "_cuda_clearCublasWorkspaces": lambda: None,
    }


def _exchange(devices: Any) -> Callable[[int], int]:
    def exchange(device: int) -> int:
        before: int = devices.device()
        if device >= 0:
            devices.set_device(device)
        return before

    return exchange


def _properties(device: int) -> SimpleNamespace:
    """Those of a large GPU, but for its memory."""
    return SimpleNamespace(
        name=NAME,
        major=CAPABILITY[0],
        minor=CAPABILITY[1],
        total_memory=TOTAL_BYTES,
        multi_processor_count=132,
        max_threads_per_multi_processor=2048,
        warp_size=32,
        L2_cache_size=50 << 20,
    )


def _mem_get_info(devices: Any) -> Callable[..., tuple[int, int]]:
    """Free bytes are those up to the cap."""

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        index = torch.cuda._utils._get_device_index(device, optional=True)
        return min(devices.cap(index), TOTAL_BYTES) - devices.live(index), TOTAL_BYTES

    return mem_get_info


def _on_gloo(of_torch: Callable[..., None]) -> Callable[..., None]:
    """Process groups that ask for NCCL get gloo, which the library gives the devices' tensors to."""

    def init_process_group(backend: str | None = None, *args: Any, **options: Any) -> None:
        options.pop("device_id", None)
        name = "cpu:gloo,cuda:gloo" if backend == "nccl" else backend
        of_torch(name, *args, **options)

    return init_process_group


def _stream(stream: Any) -> AbstractContextManager[None]:
    return nullcontext()


def _storage_to(
    storage: torch.UntypedStorage, device: Any, non_blocking: bool = False
) -> torch.UntypedStorage:
    """torch copies a storage in code that it is built without; here a tensor over it is copied."""
    if storage.device == torch.device(device):
        return storage
    return _bytes_of(storage).to(device, non_blocking=non_blocking).untyped_storage()


def _resize(of_torch: Callable[..., Any]) -> Callable[..., Any]:
    def resize_(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
        if storage.device.type != "cuda":
            return of_torch(storage, size)
        torch.ops.emulated_cuda.resize_storage(_bytes_of(storage), size)
        return storage

    return resize_


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return flat.set_(storage, 0, (storage.nbytes(),), (1,))  # type: ignore[call-overload]
