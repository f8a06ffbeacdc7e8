"""The data that the loss of a batch sees beside the embeddings, on its way while others are computed.

Shape letters: C text columns, b rows of this rank, N = C * b texts or T of ragged rows, G rows that the loss
sees, M their documents, Dg the guide's dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.batch.documents import Documents
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
    """Guide embeddings, labels and text ids of a batch, and whose documents its texts are.

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
        self._names = [  # of what is sent, in this order
            *(["guide"] if self._guide is not None else []),
            *(["labels"] if batch.labels is not None else []),
            *(["text_ids"] if loss.needs_text_ids else []),
            *(["owner", "is_positive"] if batch.documents is not None else []),
        ]
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
        tensors = []
        if self._guide is not None:
            self._memory.place = "guide"
            with self._timer.measure("guide"):
                guide_ND = self._guide_embeddings(self._guide, remedies)
            tensors.append(self._by_row(guide_ND))
        if self._batch.labels is not None:
            tensors.append(self._of_queries(self._batch.labels))
        if self._loss.needs_text_ids:
            tensors.append(self._text_ids())
        if self._batch.documents is not None:
            tensors += self._places(self._batch.documents)
        self._memory.place = "gather"
        make_room(self._visible.room(tensors), self._device, *remedies)
        self._pending = self._visible.gather.start_data(tensors, self._visible.rows)

    def _by_row(self, values_ND: Tensor) -> Tensor:
        """Values of all texts as they are sent: [b, C, ...], or [T, ...] of ragged rows as they are."""
        if self._batch.documents is not None:
            return values_ND
        shape = (self._batch.num_columns, self._batch.num_rows, *values_ND.shape[1:])
        return values_ND.view(shape).transpose(0, 1)

    def _of_queries(self, values_b: Tensor) -> Tensor:
        """Values of rows as they are sent: with nothing for the documents of ragged rows."""
        documents = self._batch.documents
        if documents is None:
            return values_b
        return torch.cat([values_b, values_b.new_zeros(documents.num)])

    def _text_ids(self) -> Tensor:
        ids = np.ascontiguousarray(self._batch.text_ids.T).view(np.int64)
        return to_device(torch.from_numpy(ids), self._device)

    def _places(self, documents: Documents) -> list[Tensor]:
        """The row of each text among those that the loss sees, and whether it is a positive, both [T]."""
        num_rows, first_row = self._batch.num_rows, self._visible.rows.start
        owner_T = np.concatenate([np.arange(num_rows), documents.owner]) + first_row
        positive_T = np.concatenate([np.zeros(num_rows, bool), documents.is_positive])
        return [to_device(torch.from_numpy(of), self._device) for of in (owner_T, positive_T)]

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
        found = dict(zip(self._names, self._pending.wait(), strict=True))
        labels, documents = found.get("labels"), None
        if self._batch.documents is None:
            texts: dict[str, tuple[Tensor, ...]] = {
                name: found[name].unbind(1) for name in ("guide", "text_ids") if name in found
            }
        else:
            texts = {name: self._visible.rows.split(values) for name, values in found.items()}
            labels = texts["labels"][0] if "labels" in texts else None
            places = (texts["owner"][1], texts["is_positive"][1])
            documents = self._visible.documents(self._batch.documents, *places)
        return LossInput(
            columns,
            self._owned,
            labels,
            texts.get("guide"),
            texts.get("text_ids"),
            self._visible.ring,
            exact_in,
            mixed,
            documents=documents,
            scores=self._scores(),
        )

    def _scores(self) -> Tensor | None:
        """Scores of the owned rows; 0 for the row that a rank without rows borrows at weight 0."""
        scores = self._batch.scores
        if scores is None or self._batch.num_rows:
            return scores
        return scores.new_zeros(
            1 if self._batch.documents is not None else self._batch.num_columns - 1
        )
