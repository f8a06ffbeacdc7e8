"""Capture and replay of random state, so that both forwards of a chunk draw the same dropout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RngState:
    """State of the default generators that a forward on `device` draws from."""

    cpu: Tensor
    device: torch.device
    accelerator: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> RngState:
        """The state now. On CUDA this reads host-side counters and does not synchronise."""
        on_gpu = device.type == "cuda"
        return cls(
            cpu=torch.get_rng_state(),
            device=device,
            accelerator=torch.cuda.get_rng_state(device) if on_gpu else None,
        )

    def restore(self) -> None:
        """Make the generators draw again what they drew after `capture`."""
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            torch.cuda.set_rng_state(self.accelerator, self.device)

    def is_state_of(self, other: RngState) -> bool:
        """True if nothing was drawn between two captures on the same device."""
        if not torch.equal(self.cpu, other.cpu):
            return False
        if self.accelerator is None or other.accelerator is None:
            return True
        return torch.equal(self.accelerator, other.accelerator)
