"""Reads what an offline W&B run has left: records in LevelDB's log format."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

from helpers.launching import WITHIN_S

BLOCK_BYTES, HEADER_BYTES = 32768, 7
FULL, FIRST, LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """The contents of a `run-<id>.wandb`."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    exit_code: int | None = None


def read_runs(output_dir: Path) -> list[OfflineRun]:
    """All starts of a run that has ended, the first one first."""
    files = sorted(output_dir.glob("wandb/offline-run-*/*.wandb"))  # named by when they started
    return [_read_whole(path) for path in files]


def _read_whole(path: Path) -> OfflineRun:
    """W&B's own process goes on writing for a moment after it has said that a run is finished."""
    deadline = time.monotonic() + WITHIN_S
    while (run := _read(path)).exit_code is None:
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)
    return run


def _read(path: Path) -> OfflineRun:
    run = OfflineRun()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.name = record.run.run_id, record.run.display_name
            run.group, run.job_type = record.run.run_group, record.run.job_type
            run.tags = list(record.run.tags)
            run.config.update(_items(record.run.config.update))
        elif kind == "config":
            run.config.update(_items(record.config.update))
        elif kind == "summary":
            run.summary.update(_items(record.summary.update))
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "metric":
            run.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            run.artifacts.append(record.artifact.name)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def _records(data: bytes) -> Iterator[Any]:
    """Records of a log: fragments inside blocks of 32 KiB, each with checksum, length and kind."""
    assert data[:4] == b":W&B"
    position, record = HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(data):
        room = BLOCK_BYTES - position % BLOCK_BYTES
        if room < HEADER_BYTES:
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:
            position += room
            continue
        start = position + HEADER_BYTES
        fragment = data[start : start + length]
        record = fragment if kind in (FULL, FIRST) else record + fragment
        position = start + length
        if kind in (FULL, LAST):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            yield message
