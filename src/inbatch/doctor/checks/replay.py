"""Gradient caching embeds a chunk twice, and both forwards must draw the same dropout."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from inbatch.doctor.checks.tiny import chunk_of, texts, tiny_encoder
from inbatch.doctor.result import Machine, Result, judged
from inbatch.encoder.varlen import kernel_runs_on
from inbatch.gradcache.rng import RngState

DROPOUT = 0.2


def replay(machine: Machine) -> Iterator[Result]:
    """A forward with dropout, done again from the saved state, with and without padding."""
    on_gpu = machine.device.type == "cuda"
    for attention, name in (("sdpa", "dropout, padded"), ("varlen", "dropout, packed")):
        if attention == "varlen" and on_gpu and not kernel_runs_on(machine.device):
            yield Result(name, "not run: this GPU has no kernel for it", None)
            continue
        yield judged(name, *replayed(machine.device, attention))


def replayed(device: torch.device, attention: str) -> tuple[str, str]:
    """What was seen, and what is wrong with it."""
    encoder = tiny_encoder(dropout=DROPOUT, attention=attention).to(device).train()
    chunk = chunk_of(encoder, texts(9)).to(device)
    before = RngState.capture(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        with torch.no_grad():
            once = encoder(chunk)
        before.restore()
        again, other = encoder(chunk), encoder(chunk)
    if not torch.equal(once, again):
        return "another forward from the same state differs", (
            f"a forward with {attention} attention and dropout differs when it is repeated from the "
            "saved random state: set gradcache.keep_gib=null, so that nothing is embedded twice"
        )
    if torch.equal(again, other):
        return "dropout changes nothing", (
            f"dropout with {attention} attention draws the same twice in a row: "
            "the random generator of this device does not advance"
        )
    return "the same bits from the same state", ""
