"""Hashes of weights: whether two models are the same, without both of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import xxhash


def hash_weights(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hash of names, types, shapes and bytes, in the order of the names; about 0.1 s per GB."""
    hasher = xxhash.xxh3_128()
    for name, tensor in sorted(named, key=lambda item: item[0]):
        hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        hasher.update(flat.view(torch.uint8).numpy().data)
    return hasher.hexdigest()
