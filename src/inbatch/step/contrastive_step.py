"""One global batch: embed, gather, loss, backward. `ContrastiveStep` knows no Lightning.

Shape letters: b rows of this rank, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.device.memory import make_room
from inbatch.encoder import Encoder
from inbatch.gradcache import (
    Accumulated,
    Embeddings,
    Engine,
    KeepBudget,
    OutOfMemoryHandler,
    backward,
    embed,
)
from inbatch.guide import Guide, Process
from inbatch.losses.base import Loss, LossInput
from inbatch.step.columns import collate_columns
from inbatch.step.defaults import default_sync, this_process
from inbatch.step.forwards import Forwards
from inbatch.step.gradient_sync import GradientSync, NoSync
from inbatch.step.loss_gradient import gradient_in_memory
from inbatch.step.loss_parameters import LossParameters
from inbatch.step.seeding import seed_step
from inbatch.step.side_data import SideData
from inbatch.step.timer import StepTimer
from inbatch.step.visible_rows import VisibleRows, visible_rows


class StepOutput(NamedTuple):
    """The results of a batch, detached."""

    loss: Tensor  # scalar; its mean over the ranks is the loss of the global batch
    metrics: dict[str, Tensor]  # scalars of the loss
    batch: Batch  # as it was computed: in smaller chunks, if memory was short


@final
class ContrastiveStep:
    """Adds the gradient of a global batch to the parameters of an encoder.

    The gradient is that of one process with the global batch, whatever the number of ranks and chunks::

        import torch, inbatch

        encoder = inbatch.load_encoder("sentence-transformers/all-MiniLM-L6-v2").train()
        step = inbatch.ContrastiveStep(encoder, inbatch.losses.MultipleNegativesRanking(), keep_gib=0)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-5)
        for rows in batches:  # {"query": [...], "positive": [...]}, the same on every rank
            output = step(step.collate(rows, chunk_rows=64))
            optimizer.step()
            optimizer.zero_grad()

    On several ranks start `torch.distributed` first; gradients are then averaged over them. Run it under
    `torch.autocast` for mixed precision; the loss is computed in float32 all the same. A loss that trains
    something itself, as a learned temperature, has it in `loss_parameters`: give it to the optimizer too, and
    call `loss_parameters.clamp()` after its step.

    Args:
        encoder: what is trained, on its device and in training mode.
        losses: the loss of every batch, or one loss for each source by name.
        loss_parameters: what they train; None makes it.
        guide: embeddings for losses that need a guide; started here.
        gather: "global" contrasts with the rows of all ranks, "ring" does so without holding them all at a
            time, "local" contrasts with the rows of this rank only.
        keep_gib: GiB of activations that may be held between the passes; None holds all (no second
            forward), 0 none (each text is embedded twice).
        seed: draws dropout as a function of the place in the run; None leaves torch's random state alone.
        gradient_sync: how gradients are reduced over ranks; None averages them after the last backward.
        collective_forward: ranks take part in each other's forwards, as where parameters are in shards.
        compiled: the encoder's backbone runs through torch.compile.
        backward: scalar -> None; a strategy's own backward, where it has one.
        process: device, rank and world size; None asks the encoder and `torch.distributed`.
    """

    def __init__(
        self,
        encoder: Encoder,
        losses: Loss | Mapping[str, Loss],
        *,
        loss_parameters: LossParameters | None = None,
        guide: Guide | None = None,
        gather: Literal["global", "ring", "local"] = "global",
        keep_gib: float | None = None,
        seed: int | None = None,
        gradient_sync: GradientSync | None = None,
        collective_forward: bool = False,
        compiled: bool = False,
        backward: Callable[[Tensor], None] = Tensor.backward,
        process: Process | None = None,
    ) -> None:
        self.encoder = encoder
        self.process = process or this_process(encoder)
        self.timer = StepTimer.on(self.process.device)
        self.memory = OutOfMemoryHandler(KeepBudget(keep_gib))
        self._losses = losses
        self._guide = guide
        self._gather = gather
        self._seed = seed
        self.loss_parameters = loss_parameters or LossParameters(
            losses,
            dim=encoder.output_dimension,
            guide_dim=None if guide is None else guide.dimension,
            like=next(encoder.parameters()).detach(),
            seed=seed or 0,
        )
        besides = list(self.loss_parameters.parameters())
        trained = [p for p in [*encoder.parameters(), *besides] if p.requires_grad]
        self._sync = gradient_sync or default_sync(trained, self.process.world_size)
        self._forwards = Forwards(
            encoder,
            self.memory.budget,
            device=self.process.device,
            world_size=self.process.world_size,
            collective=collective_forward,
            compiled=compiled,
        )
        self._accumulated = Accumulated(trained, besides)
        # Ranks that take part in each other's forwards can neither repeat them nor let go of graphs alone.
        self._relief = None if collective_forward else self.memory
        self._shared = self._forwards.shared(self.memory, self._sync.collectives)
        self._backward = backward
        if guide is not None:
            guide.start(self.process)

    def __call__(
        self, batch: Batch, *, epoch: int = 0, position: int = 0, size: int = 1
    ) -> StepOutput:
        """Add the gradient of a batch; every rank calls it with its own rows of the global batch.

        Args:
            batch: the rows of this rank, on its device.
            epoch: for the random numbers of dropout.
            position: place of the batch in its optimizer step.
            size: batches of the optimizer step, whose gradients are averaged; reduced after the last.

        Raises:
            ConfigError: the batch does not fit in memory; the setting that needs less is named.
        """
        last = position == size - 1
        if position == 0:
            self._sync.start()
        attempt = partial(self._accumulate, batch=batch, epoch=epoch, size=size, last=last)
        if self._shared is None:
            output = self.memory.run(
                attempt,
                batch=batch,
                may_repeat=position == 0 and isinstance(self._sync, NoSync),
                may_let_go=self._relief is not None,
                undo=self._zero_grad,
                say=self._say,
            )
        else:
            output = self._shared.run(attempt, batch=batch, position=position, say=self._say)
        if last:
            self._sync.finish()
        return output

    def _zero_grad(self) -> None:
        self.encoder.zero_grad()
        self.loss_parameters.zero_grad()

    def keep_fewer(self, batch: Batch, place: str) -> bool:
        """Keep half as many graphs from the next batch on; False where this one has kept none.

        Args:
            batch: that was computed last.
            place: where memory has run out, in words.
        """
        before = self.memory.sizes
        alone, together = self._relief is not None, self._shared is not None
        lowered = (alone or together) and self.memory.lower_kept(batch)
        if lowered:
            self._say(f" in {place}: {self.memory.describe(before)} from the next step on")
        return lowered

    def _say(self, rest: str) -> None:
        rank, alone = self.process.rank, self.process.world_size == 1
        say = print if rank else self.process.say
        say(f"out of memory{'' if alone else f' on rank {rank}'}{rest}")

    def _accumulate(self, *, batch: Batch, epoch: int, size: int, last: bool) -> StepOutput:
        """The way of a batch: embed, gather, loss, backward."""
        batch = self.memory.fit(batch)
        if self._seed is not None:
            seed_step(self._seed, epoch, batch.step, self.process.rank)
        loss = self._losses[batch.source] if isinstance(self._losses, Mapping) else self._losses
        loss = loss.settled(lists=batch.documents is not None)
        visible = visible_rows(batch, loss, mode=self._gather, process=self.process)
        side = SideData(
            batch,
            loss,
            visible,
            self._guide,
            memory=self.memory,
            timer=self.timer,
            device=self.process.device,
        )
        if not side.may_wait:
            side.send()
        chunks, num_keep = self._forwards.aligned(batch.chunks)

        with self._forwards.of_batch(chunks, self._accumulated.note) as complete:
            engine = self._engine(size, complete)
            self.memory.place = "embedding"
            embeddings = embed(engine, chunks, num_keep=num_keep)
            with self.timer.measure("loss"):
                local = visible.local(embeddings.values_ND, batch)
                inputs = self._gathered(local, embeddings, visible, side)
                inputs = replace(inputs, parameters=self.loss_parameters.of(batch.source))
                self.memory.place = "loss"
                found = gradient_in_memory(
                    loss,
                    inputs,
                    weight=visible.rows.weight,
                    ring=visible.ring,
                    memory=self.memory,
                    keep_fewer=embeddings.keep_fewer,
                    end=self._shared and self._shared.end,
                )
                self._make_room(local, embeddings, visible)
                embeddings.differentiate(inputs.columns, found.columns)
                value, metrics = found.loss, found.metrics
                besides = partial(self.loss_parameters.pull, batch.source, found.parameters)
            del inputs, found  # as large as the global batch
            self.memory.place = "backward"
            trains = not self.loss_parameters.is_empty
            backward(engine, embeddings, last=last, besides=besides if trains else None)
        return StepOutput(value, metrics, batch)

    def _gathered(
        self, local: Tensor, embeddings: Embeddings, visible: VisibleRows, side: SideData
    ) -> LossInput:
        """What the loss sees: the visible rows of all columns, and the data beside them."""
        if side.may_wait:
            side.send(embeddings.keep_fewer)
        self._make_room(local, embeddings, visible)
        with self.timer.measure("gather"):
            exact_in = embeddings.exact_in
            columns = visible.columns(local, exact_in=exact_in)
            mixed = torch.is_autocast_enabled(self.process.device.type)
            return side.loss_input(columns, exact_in=exact_in, mixed=mixed)

    def _make_room(self, local: Tensor, embeddings: Embeddings, visible: VisibleRows) -> None:
        """Let go of graphs until the visible rows fit, since a collective cannot be done again."""
        self.memory.place = "gather"
        make_room(visible.room([local]), self.process.device, embeddings.keep_fewer)

    def _engine(self, size: int, complete: Callable[[], None]) -> Engine:
        return Engine(
            encode=self._forwards,
            backward=self._backward,
            gradient_sync=self._sync.backward,
            measure=self.timer.measure,
            complete=complete,
            size=size,
            relief=self._relief,
            accumulated=self._accumulated,
            shared=self._shared,
        )

    def collate(
        self,
        columns: Mapping[str, Sequence[Any]],
        *,
        step: int = 0,
        chunk_rows: int | None = None,
        chunk_tokens: int | None = None,
    ) -> Batch:
        """Tokenize this rank's rows of a global batch and move them to the device.

        Args:
            columns: the whole global batch, the same on every rank: texts, lists of texts, or numbers, by
                names like "query", "positive", "negative", "label".
            step: number of the batch, for the random numbers of dropout.
            chunk_rows, chunk_tokens: most texts and computed tokens of one forward; None for no limit.
        """
        return collate_columns(
            columns,
            encoder=self.encoder,
            guide=self._guide,
            process=self.process,
            step=step,
            chunk_rows=chunk_rows,
            chunk_tokens=chunk_tokens,
        )
