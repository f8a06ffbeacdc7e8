"""How fast a device computes and ranks exchange bytes: measured by `inbatch doctor`, or of a data sheet.

Shape letters: W ranks, n bytes of the whole tensor of a collective.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.optimize import nnls

from inbatch.errors import ConfigError, did_you_mean

Kind = Literal["all_reduce", "all_gather", "reduce_scatter"]
KINDS: tuple[Kind, ...] = ("all_reduce", "all_gather", "reduce_scatter")
CARDS = Path(__file__).parent / "cards.json"

# Of a data sheet's peaks, what large products, copies and collectives reach; and seconds of a round.
_REACHED = {"matmul": 0.65, "memory": 0.85, "network": 0.8}
_LATENCY_S = {"near": 10e-6, "far": 25e-6}


@dataclass(frozen=True, slots=True)
class Link:
    """What a rank sends through at a time."""

    bytes_per_s: float
    latency_s: float  # of one round of messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Of one rank.

    name: of the device.
    device: its kind.
    native_bf16: whether `precision=auto` takes bf16.
    matmul_flops: operations a second of large products, by dtype: float32, tf32, bfloat16.
    memory_bytes_per_s: read and written.
    memory_bytes: of the device.
    near, far: links between ranks of one node, by kind of collective, and between nodes.
    ranks_per_node: that share a node.
    """

    name: str
    device: Literal["cpu", "cuda"]
    native_bf16: bool
    matmul_flops: Mapping[str, float]
    memory_bytes_per_s: float
    memory_bytes: float
    near: Mapping[Kind, Link]
    far: Link | None = None
    ranks_per_node: int = 8

    def seconds(self, kind: Kind, num_bytes: float, ranks: int) -> float:
        """Time of a collective: its rounds, and the bytes that each rank sends (see `sent_bytes`).

        Across nodes the slower link counts: rings pass through it, and each rank has its share of it.
        """
        if ranks == 1 or num_bytes == 0:
            return 0.0
        link = self._link(kind, ranks)
        sent = sent_bytes(kind, num_bytes, ranks)
        return rounds(kind, ranks) * link.latency_s + sent / link.bytes_per_s

    def hop_seconds(self, num_bytes: float, ranks: int) -> float:
        """Time to send bytes to the next rank of a ring, while others come from the one before."""
        link = self._link("all_gather", ranks)
        return link.latency_s + num_bytes / link.bytes_per_s if ranks > 1 else 0.0

    def slowed(self, factor: float) -> Rates:
        """The same where each rank has only a part of the cores that were measured."""
        flops = {name: rate / factor for name, rate in self.matmul_flops.items()}
        return replace(
            self, matmul_flops=flops, memory_bytes_per_s=self.memory_bytes_per_s / factor
        )

    def _link(self, kind: Kind, ranks: int) -> Link:
        near = self.near[kind]
        if ranks <= self.ranks_per_node or self.far is None:
            return near
        return min(near, self.far, key=lambda link: link.bytes_per_s)


def sent_bytes(kind: Kind, num_bytes: float, ranks: int) -> float:
    """Bytes that each rank sends: (W - 1) / W n, and twice that for an all-reduce."""
    once = (ranks - 1) / ranks * num_bytes
    return 2 * once if kind == "all_reduce" else once


def rounds(kind: Kind, ranks: int) -> float:
    """Rounds of messages of a tree: log2(W), and twice that for an all-reduce."""
    once = math.log2(ranks)
    return 2 * once if kind == "all_reduce" else once


def fit_link(kind: Kind, rows: Sequence[Mapping[str, float]]) -> Link:
    """Latency and bandwidth that come nearest to measured collectives, in relative terms.

    Args:
        kind: of the collective.
        rows: {bytes, ranks, seconds} each.
    """
    factors = np.array(
        [
            [rounds(kind, int(row["ranks"])), sent_bytes(kind, row["bytes"], int(row["ranks"]))]
            for row in rows
        ]
    )
    seconds = np.array([row["seconds"] for row in rows])
    scale = factors.max(0)  # bytes are many, rounds are few
    (latency, per_byte), _ = nnls(factors / scale / seconds[:, None], np.ones(len(rows)))
    return Link(float(scale[1] / max(per_byte, 1e-300)), float(latency / scale[0]))


def of_doctor(found: Mapping[str, Any], *, name: str) -> Rates:
    """Rates that `inbatch doctor` has measured.

    Args:
        found: the content of doctor.json.
        name: of the file, for messages.

    Raises:
        ConfigError: a rate is missing.
    """
    try:
        rates, collectives = found["rates"], found["rates"]["collectives"]
        rows = {kind: [row for row in collectives[kind] if row["ranks"] > 1] for kind in KINDS}
        flops = {key: rate for key, rate in rates["matmul_flops"].items() if rate is not None}
        near = {kind: fit_link(kind, rows[kind]) for kind in KINDS if rows[kind]}
        ranks = max((int(row["ranks"]) for each in rows.values() for row in each), default=1)
        device = found["device"]
        return Rates(
            name=device["name"],
            device=device["type"],
            native_bf16=device["native_bf16"],
            matmul_flops=flops,
            memory_bytes_per_s=rates["memory_bytes_per_s"],
            memory_bytes=found["memory_bytes"] / (ranks if device["type"] == "cpu" else 1),
            near=near or dict.fromkeys(KINDS, Link(math.inf, 0.0)),
            ranks_per_node=ranks,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "plan.rates", f"names {name}, which has no {error}", "write it with inbatch doctor"
        ) from None


def of_card(name: str, *, far_gbit_per_s: float | None = None) -> Rates:
    """Rates of a card by its data sheet: the share of its peaks that is usually reached.

    Args:
        name: of an entry of cards.json.
        far_gbit_per_s: of the adapter between nodes for each GPU; None for that of the entry.

    Raises:
        ConfigError: there is no such entry.
    """
    cards = json.loads(CARDS.read_text(encoding="utf-8"))
    if name not in cards:
        known = did_you_mean(name, cards) or f"use one of {', '.join(cards)}, or a doctor.json"
        raise ConfigError("plan.rates", "is neither a file nor a card", known, value=name)
    card = cards[name]
    far = card["far_bytes_per_s"] if far_gbit_per_s is None else far_gbit_per_s * 1e9 / 8
    near = Link(card["near_bytes_per_s"] * _REACHED["network"], _LATENCY_S["near"])
    return Rates(
        name=card["name"],
        device="cuda",
        native_bf16=True,
        matmul_flops={key: rate * _REACHED["matmul"] for key, rate in card["matmul_flops"].items()},
        memory_bytes_per_s=card["memory_bytes_per_s"] * _REACHED["memory"],
        memory_bytes=card["memory_bytes"],
        near=dict.fromkeys(KINDS, near),
        far=Link(far * _REACHED["network"], _LATENCY_S["far"]),
        ranks_per_node=card["ranks_per_node"],
    )
