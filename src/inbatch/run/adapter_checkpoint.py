"""Checkpoints of a run that trains an adapter: without the frozen weights, which never change."""

from __future__ import annotations

from typing import Any

from inbatch.encoder import Encoder
from inbatch.errors import ConfigError

_ENCODER = "encoder."
_BASE = "adapter_base"  # digest of the frozen weights


def drop_frozen(checkpoint: dict[str, Any], encoder: Encoder) -> None:
    """Leave frozen weights of the encoder out of a checkpoint, and note which ones they are.

    DeepSpeed writes weights in shards of its own, all of them, and the checkpoint here has none.
    """
    if encoder.adapter is None:
        return
    checkpoint[_BASE] = encoder.adapter.base_digest
    frozen = {_ENCODER + n for n, p in encoder.named_parameters() if not p.requires_grad}
    state = checkpoint.get("state_dict") or {}
    for name in frozen & state.keys():
        del state[name]


def check_frozen(checkpoint: dict[str, Any], encoder: Encoder) -> None:
    """Check that a checkpoint belongs to an adapter beside the same weights.

    Raises:
        ConfigError: it was trained beside others, or holds no adapter.
    """
    found = checkpoint.get(_BASE)
    if encoder.adapter is None or found == encoder.adapter.base_digest:
        return
    raise ConfigError(
        "resume",
        "names a checkpoint without an adapter"
        if found is None
        else "names the checkpoint of an adapter that was trained beside other weights",
        "give the encoder.model and encoder.adapter of its run, or another output_dir",
    )
