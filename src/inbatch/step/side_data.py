"""The data that the loss of a batch sees beside the embeddings, on its way while others are computed.

Shape letters: C text columns, b rows of this rank, N = C * b texts, G rows that the loss sees, Dg the guide's
dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.device.copies import to_device
from inbatch.device.memory import make_room, retried
from inbatch.gather.gather import Pending
from inbatch.gradcache import OutOfMemoryHandler
from inbatch.guide import Guide
from inbatch.losses.base import Loss, LossInput
from inbatch.step.timer import StepTimer
from inbatch.step.visible_rows import VisibleRows


@final
class SideData:
    """Guide embeddings, labels and text ids of a batch.

    Args:
        batch: the batch of this rank.
        loss: its loss, which says what it needs.
        visible: how its rows reach the loss.
        guide: embeds or looks up what a loss with a guide needs.
        memory: what to do where memory runs out.
        timer: measures the guide.
        device: where the loss is computed.
    """

    def __init__(
        self,
        batch: Batch,
        loss: Loss,
        visible: VisibleRows,
        guide: Guide | None,
        *,
        memory: OutOfMemoryHandler,
        timer: StepTimer,
        device: torch.device,
    ) -> None:
        self._batch, self._loss, self._visible = batch, loss, visible
        self._guide = guide if loss.needs_guide else None
        self._memory, self._timer, self._device = memory, timer, device
        self._has = (self._guide is not None, batch.labels is not None, loss.needs_text_ids)
        self._owned = visible.rows.owned if batch.num_rows else slice(0, 1)
        self._pending: Pending

    @property
    def may_wait(self) -> bool:
        """True if it is best sent once embeddings were queued: a look-up keeps the host busy, not a GPU."""
        return self._guide is not None and self._guide.looks_up

    def send(self, *remedies: Callable[[], bool]) -> None:
        """Send the data on its way.

        Args:
            remedies: make memory free, see `retried`.
        """
        batch = self._batch
        tensors = []
        if self._guide is not None:
            self._memory.place = "guide"
            with self._timer.measure("guide"):
                guide_ND = self._guide_embeddings(self._guide, remedies)
            shape = (batch.num_columns, batch.num_rows, guide_ND.shape[1])
            tensors.append(guide_ND.view(shape).transpose(0, 1))
        if batch.labels is not None:
            tensors.append(batch.labels)
        if self._loss.needs_text_ids:
            ids_BC = torch.from_numpy(np.ascontiguousarray(batch.text_ids.T).view(np.int64))
            tensors.append(to_device(ids_BC, self._device))
        self._memory.place = "gather"
        make_room(self._visible.room(tensors), self._device, *remedies)
        self._pending = self._visible.gather.start_data(tensors, self._visible.rows)

    def _guide_embeddings(self, guide: Guide, remedies: tuple[Callable[[], bool], ...]) -> Tensor:
        """Embeddings of the guide [N, Dg], in smaller chunks where it runs out of memory."""
        batch = self._batch

        def halve() -> bool:
            nonlocal batch
            halves = self._memory.halve(batch.guide_chunks) if batch.guide_chunks else ()
            batch = batch._replace(guide_chunks=tuple(halves) or batch.guide_chunks)
            return bool(halves)

        return retried(lambda: guide.embed(batch, self._device), *remedies, halve)

    def loss_input(
        self, columns: tuple[Tensor, ...], *, exact_in: torch.dtype | None, mixed: bool
    ) -> LossInput:
        """Wait for the data, and put together what the loss sees.

        Args:
            columns: embeddings of the visible rows, each [G, D].
            exact_in: a 16-bit type that holds the embeddings exactly; None for none.
            mixed: the encoder computes in 16 bits.
        """
        tensors = iter(self._pending.wait())
        guided, labelled, with_ids = self._has
        guide = next(tensors).unbind(1) if guided else None
        labels = next(tensors) if labelled else None
        ids = next(tensors).unbind(1) if with_ids else None
        ring = self._visible.ring
        return LossInput(columns, self._owned, labels, guide, ids, ring, exact_in, mixed)
