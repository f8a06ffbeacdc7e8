"""The rank consistency check: all ranks train on the same inputs, or none does.

Nodes may see different files, configurations or versions of a tokenizer under the same names. Each rank
would then plan other batches than its neighbours, and their common gradient would belong to no batch. If
only some ranks see the checkpoint of a resumed run, the others would start again, with other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.data.hashing import hash_json
from inbatch.errors import ConfigError
from inbatch.gather import sum_over_ranks

SAME_INPUT = "give all nodes the same files and the same command"


class RankConsistency(Callback):
    """Compares facts over ranks, once they have met and before parameters are wrapped.

    Args:
        facts: {name: function that returns the value}, in the same order on each rank; compared as JSON.
        remedies: {name: what to do if it differs}; the others get `SAME_INPUT`.
    """

    def __init__(
        self,
        facts: Mapping[str, Callable[[], Any]],
        *,
        remedies: Mapping[str, str] | None = None,
    ) -> None:
        self._facts = facts
        self._remedies = remedies or {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare. A strategy, which would compare shapes in its own words, is set up afterwards, and a
        checkpoint, for which the ranks of some strategies wait for each other, is loaded afterwards.

        Raises:
            ConfigError: on all ranks, if one differs from rank 0; the first is named.
        """
        if trainer.world_size == 1:
            return
        all_WF = torch.zeros(trainer.world_size, len(self._facts), dtype=torch.int64)
        all_WF[trainer.global_rank] = torch.tensor(
            [digest(each()) for each in self._facts.values()]
        )
        all_WF = sum_over_ranks(all_WF.to(trainer.strategy.root_device)).cpu()
        differs_WF = all_WF != all_WF[0]
        if differs_WF.any():
            rank = int(differs_WF.any(1).nonzero()[0])
            names = [name for name, differs in zip(self._facts, differs_WF[rank]) if differs]
            remedies = dict.fromkeys(self._remedies.get(name, SAME_INPUT) for name in names)
            raise ConfigError(
                f"rank {rank}",
                f"has another {' and another '.join(names)} than rank 0",
                ", and ".join(remedies),
            )


def digest(fact: Any) -> int:
    """63 bits of a fact, the same in every process."""
    return int(hash_json(fact)[:16], 16) >> 1
