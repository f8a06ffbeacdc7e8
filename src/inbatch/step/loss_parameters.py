"""The parameters that losses train beside the encoder's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from inbatch.data.collate import MIXED
from inbatch.errors import ConfigError
from inbatch.gather import local_part
from inbatch.losses.base import Loss


def clamp_whole(parameter: nn.Parameter, most: float) -> None:
    """Bring a parameter down to a largest value; one that each rank holds whole."""
    local_part(parameter.data).clamp_(max=most)


@final
class LossParameters(nn.Module):
    """Those of a run.

    One loss for all sources has one set of them, named as the loss names them. Where sources have losses of
    their own, each has its own, named ``source/name``, with "_" for each dot.

    Each backward that reduces gradients reaches all of them, those of other sources with zeros: a strategy
    waits for the gradient of every parameter. So an optimizer moves all of them in each step.

    Args:
        losses: one for all sources, or one for each source by name; one for all if it has an entry for
            batches of several sources.
        dim: of the encoder's embeddings.
        guide_dim: of the guide's; None without a guide.
        like: a tensor of the type, float32 at least, and of the device that they get.
        seed: of their first values, the same on all ranks.

    Raises:
        ConfigError: the names of two sources differ in dots and "_" alone.
    """

    def __init__(
        self,
        losses: Loss | Mapping[str, Loss],
        *,
        dim: int,
        guide_dim: int | None,
        like: Tensor,
        seed: int = 0,
    ) -> None:
        super().__init__()
        shared = losses if isinstance(losses, Loss) else losses.get(MIXED)
        of_sources = losses if shared is None else {MIXED: shared}
        assert isinstance(of_sources, Mapping)
        self._is_shared = shared is not None
        self._names: dict[str, dict[str, str]] = {}  # by source: name of the loss -> name in here
        self._most: dict[str, float] = {}
        draws = torch.Generator().manual_seed(seed)
        for source, loss in of_sources.items():
            self._names[source] = {}
            for name, (shape, fill, most) in loss.parameters(dim=dim, guide_dim=guide_dim).items():
                key = name if self._is_shared else f"{source}/{name}".replace(".", "_")
                if key in self._parameters:
                    raise ConfigError(
                        f"source {source!r}",
                        "has a loss that trains parameters, and but for dots and '_' the name of another",
                        "rename one of them",
                    )
                value = torch.empty(shape, dtype=torch.float32)
                fill(value, draws)
                dtype = torch.promote_types(like.dtype, torch.float32)
                self.register_parameter(key, nn.Parameter(value.to(like.device, dtype)))
                self._names[source][name] = key
                if most is not None:
                    self._most[key] = most

    @property
    def is_empty(self) -> bool:
        """True if no loss trains anything."""
        return not self._parameters

    def forward(self, use: Callable[[dict[str, Tensor]], Any]) -> Any:
        """The result of `use` with all parameters by their names in here, whole while it runs."""
        return use({name: local_part(value) for name, value in self.named_parameters()})

    def _of(self, source: str) -> dict[str, str]:
        return self._names[MIXED if self._is_shared else source]

    @torch.no_grad()
    def of(self, source: str) -> dict[str, Tensor]:
        """Copies of what the loss of a source trains, by its own names."""
        if self.is_empty:
            return {}

        def copies(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: values[key].clone() for name, key in self._of(source).items()}

        found: dict[str, Tensor] = self(copies)
        return found

    def held(self, source: str) -> dict[str, Tensor]:
        """What this rank holds whole of the parameters of a source's loss, by its own names."""
        values = {name: local_part(p.detach()) for name, p in self.named_parameters()}
        of_source = {name: values[key] for name, key in self._of(source).items()}
        return {name: value for name, value in of_source.items() if value.numel()}

    def pull(self, source: str, gradients: Mapping[str, Tensor]) -> Tensor:
        """A scalar whose gradients are these for the parameters of a source, and zero for all others.

        Args:
            source: of the batch.
            gradients: by the names of the loss.
        """
        by_key = {self._of(source)[name]: gradient for name, gradient in gradients.items()}

        def scalar(values: dict[str, Tensor]) -> Tensor:
            parts = [
                (value.to(torch.promote_types(value.dtype, torch.float32)) * by_key.get(key, 0.0))
                for key, value in values.items()
            ]
            return torch.stack([part.sum() for part in parts]).sum()

        found: Tensor = self(scalar)
        return found

    def clamp(self, limit: Callable[[nn.Parameter, float], None] = clamp_whole) -> None:
        """Bring values back to their bounds, after an optimizer step.

        Args:
            limit: brings a parameter down to its largest value.
        """
        for name, parameter in self.named_parameters():
            if name in self._most:
                limit(parameter, self._most[name])
