"""The LightningModule: one optimizer step over the parts of the package.

`training_step` is the whole way of a batch. Optimization is manual always, so that gradient caching
and the ordinary forward share one path, one place for clipping and no tensor hooks.
Shape letters: C text columns, b local rows, G global rows, N = C * b texts, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from inbatch.batch.batch import Batch, Chunk
from inbatch.compat import num_compiled_graphs
from inbatch.encoder import Encoder
from inbatch.encoder.lookup import shared_lookup
from inbatch.gather import Gather, GlobalGather, LocalGather, Rows, RowsRing, max_over_ranks
from inbatch.gather.gather import Pending
from inbatch.gradcache import Engine, Headroom, KeepBudget, cached_backward, fill_chunks
from inbatch.guide import Guide, Process
from inbatch.losses.base import Loss, LossInput, LossOutput
from inbatch.losses.geometry import alignment_and_uniformity
from inbatch.optim import Schedule, parameter_groups, to_lambda_lr
from inbatch.step.report import StepReport
from inbatch.step.settings import (
    StepSettings,
    accumulation,
    count_epochs,
    name_optimizer_states,
    seed_step,
)
from inbatch.step.timer import StepTimer
from inbatch.strategies import GradientSync, NoSync, Strategy


class View(NamedTuple):
    """What the loss of a batch sees."""

    gather: Gather
    rows: Rows
    loss: Loss
    # To the rows of other ranks, where the loss needs them and `gather` has none.
    ring: RowsRing | None


class BiEncoderModule(LightningModule):
    """Trains an encoder with one loss, or with one loss per source."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        losses: Mapping[str, Loss],
        strategy: Strategy,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule,
        guide: Guide | None = None,
        settings: StepSettings | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder = encoder.train()  # transformers loads in eval mode, and Lightning keeps that
        self.losses = dict(losses)  # source name -> loss
        self.strategy = strategy
        self.settings = settings or StepSettings()
        self.last_step: StepReport | None = None
        self._make_optimizer = optimizer
        self._schedule = schedule
        self._guide = guide
        self._budget = KeepBudget(self.settings.keep_gib)
        self._headroom = Headroom(self._budget)
        self._phases: StepTimer
        self._gradient_sync: GradientSync
        self._gradient_norm: Tensor | None = None

    def configure_model(self) -> None:
        """Shard parameters where the strategy does."""
        self.strategy.shard(self)

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer over decay and no-decay groups, and the schedule over all steps of the run."""
        rates = self.settings.learning_rate_mapping
        groups = parameter_groups(self.encoder.named_parameters(), learning_rate_mapping=rates)
        optimizer = self._make_optimizer(groups)
        scheduler = to_lambda_lr(optimizer, self._schedule, self.total_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        trainer, data = self.trainer, self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            trainer.fit_loop.setup_data()  # no-op once done; before it nobody knows the number
            num_batches = int(trainer.num_training_batches)
        else:  # workers begin to read in the set-up, which must wait for a checkpoint's position
            num_batches = data.batches_per_epoch
        per_epoch = math.ceil(num_batches / self.settings.accumulate)
        limits = [trainer.max_steps] if trainer.max_steps > 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            limits.append(per_epoch * trainer.max_epochs)
        return min(limits)

    def on_fit_start(self) -> None:
        """Choose how gradients are synchronised and start the guide, now that the strategy is set up."""
        self._gradient_sync = self.strategy.gradient_sync(self)
        self._phases = StepTimer.on(self.device)
        with self.trainer.precision_plugin.forward_context():
            self.encoder.check_packing(self.device)
        if self.settings.compile:
            self.encoder.compile_backbone()
        if self._guide is not None:
            self._guide.start(self._process())

    def _process(self) -> Process:
        """This rank, for what the guide computes before the first step."""
        strategy, bar = self.trainer.strategy, self.trainer.progress_bar_callback
        return Process(
            device=strategy.root_device,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            barrier=strategy.barrier,
            say=lambda line: None if bar is None else bar.print(line),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Key optimizer state by parameter name, so that another strategy can load it."""
        name_optimizer_states(
            self.trainer.optimizers, checkpoint["optimizer_states"], self.named_parameters()
        )
        count_epochs(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another plan before its weights are loaded."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None:
            data.check_checkpoint(checkpoint)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Embed, gather, loss, cached backward; an optimizer step after every `accumulate` batches."""
        position, size = accumulation(
            batch.step, int(self.trainer.num_training_batches), self.settings.accumulate
        )
        last = position == size - 1
        self._gradient_norm = None
        if position == 0:
            self._gradient_sync.start()
        batch, output = self._headroom.run(
            lambda rescue: self._accumulate(batch, size=size, last=last, rescue=rescue),
            batch=batch,
            rank=self.global_rank,
            may_repeat=position == 0 and isinstance(self._gradient_sync, NoSync),
            may_rescue=not self.strategy.collective_forward,
            undo=self.encoder.zero_grad,
            say=print if self.global_rank else self._process().say,
        )
        if last:
            self._gradient_sync.finish()
            self._step_optimizer()
        self._report(batch, output)

    def _accumulate(
        self, batch: Batch, *, size: int, last: bool, rescue: Callable[[], None] | None
    ) -> tuple[Batch, LossOutput]:
        """Add the gradient of one batch of an optimizer step of `size` batches; the batch as cut."""
        batch = self._headroom.fit(batch)
        seed_step(self.settings.seed, self.current_epoch, batch.step, self.global_rank)
        view = self._view(batch)
        data = self._start_data(batch, view)
        chunks, num_keep = self._aligned(batch)
        engine = Engine(
            encode=self._embed,
            loss=partial(self._loss, batch, view, data),
            backward=lambda surrogate: self.manual_backward(surrogate / size),
            gradient_sync=self._gradient_sync.backward,
            phase=self._phases.measure,
            sharing=self._share_lookup,
            rescue=rescue,
        )
        return batch, cached_backward(engine, chunks, num_keep=num_keep, last=last)

    def _view(self, batch: Batch) -> View:
        """Whose rows the loss of this batch sees. Row losses see their own, global losses hold all.

        A rank without rows (in a last batch smaller than the world) borrows a gathered row at weight 0.
        """
        loss = self.losses[batch.source]
        world = {"rank": self.global_rank, "world_size": self.trainer.world_size}
        alone, full = world["world_size"] == 1, batch.num_global_rows >= world["world_size"]
        in_ring = self.settings.gather == "ring" and loss.scope == "candidates"
        apart = in_ring or loss.scope == "row" or self.settings.gather == "local"
        gather: Gather = (
            LocalGather(**world) if alone or (apart and full) else GlobalGather(**world)
        )
        rows = gather.rows(batch.num_rows, batch.num_global_rows)
        ring = RowsRing(rows.counts, rows.rank) if in_ring and full and not alone else None
        return View(gather, rows, loss, ring)

    def _start_data(self, batch: Batch, view: View) -> Pending:
        """Begin to gather what a loss needs beside embeddings, so that it travels during the embedding."""
        tensors = []
        if view.loss.needs_guide:
            assert self._guide is not None
            with self._phases.measure("guide"):
                guide_ND = self._guide.embed(batch, self.device)
            shape = (batch.num_columns, batch.num_rows, guide_ND.shape[1])
            tensors.append(guide_ND.view(shape).transpose(0, 1))
        if batch.labels is not None:
            tensors.append(batch.labels)
        if view.loss.needs_text_ids:
            ids_BC = torch.from_numpy(np.ascontiguousarray(batch.text_ids.T).view(np.int64))
            tensors.append(ids_BC.to(self.device, non_blocking=True))
        return view.gather.start_data(tensors, view.rows)

    def _loss(self, batch: Batch, view: View, data: Pending, flat_ND: Tensor) -> LossOutput:
        """Gather the embeddings and take the loss of the rows that this rank owns."""
        local_CbD = flat_ND.view(batch.num_columns, batch.num_rows, flat_ND.shape[1])
        with self._phases.measure("gather"):
            columns = view.gather.embeddings(local_CbD, view.rows)
            tensors = data.wait()
        guide = tensors.pop(0).unbind(1) if view.loss.needs_guide else None
        labels = tensors.pop(0) if batch.labels is not None else None
        ids = tensors.pop(0).unbind(1) if view.loss.needs_text_ids else None
        owned = view.rows.owned if batch.num_rows else slice(0, 1)
        with torch.autocast(self.device.type, enabled=False):
            output = view.loss(LossInput(columns, owned, labels, guide, ids, view.ring))
        metrics = dict(output.metrics)
        if labels is None:
            metrics |= alignment_and_uniformity(columns[0], columns[1])
        return LossOutput(output.loss * view.rows.weight, metrics)

    def _aligned(self, batch: Batch) -> tuple[list[Chunk], int]:
        """Chunks and kept graphs, the same number on all ranks where the encoder's forward is collective."""
        num_keep = self._budget.num_keep(batch.chunks)
        num_chunks = max(1, len(batch.chunks))
        if self.strategy.collective_forward and self.trainer.world_size > 1:
            num_chunks, fewest = max_over_ranks([num_chunks, -num_keep], self.device)
            num_keep = num_chunks if self.settings.keep_gib is None else -fewest
        return fill_chunks(batch.chunks, num_chunks, self.device), num_keep

    def _share_lookup(self, chunks: Sequence[Chunk]) -> AbstractContextManager[None]:
        """One token lookup for all, on a CPU with whole parameters and forwards that are not compiled."""
        on_cpu = self.device.type == "cpu"
        if not on_cpu or self.strategy.collective_forward or self.settings.compile:
            return nullcontext()
        table = self.encoder.backbone.get_input_embeddings()
        return shared_lookup(table, [chunk.input_ids for chunk in chunks])

    def _embed(self, chunk: Chunk) -> Tensor:
        if self._budget.wants_measure and torch.is_grad_enabled():
            parameters = self.encoder.parameters()
            held = [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
            with self._budget.measure(chunk.input_ids.numel(), held):
                return self.encoder(chunk)
        return self.encoder(chunk)

    def _step_optimizer(self) -> None:
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        with self._phases.measure("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        if self.strategy.clips_gradients:
            self._gradient_norm = self.strategy.gradient_norm(self)
        schedule.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip by the global norm; here gradients are unscaled and reduced."""
        if self.strategy.clips_gradients:
            return
        parameters = [p for p in self.encoder.parameters() if p.grad is not None]
        limit = self.settings.clip_norm if self.settings.clip_norm is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        self._gradient_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _report(self, batch: Batch, output: LossOutput) -> None:
        self.last_step = StepReport(
            loss=output.loss,
            metrics=output.metrics,
            num_rows=batch.num_global_rows,
            num_tokens=batch.num_tokens,
            num_padded_tokens=sum(map(self.encoder.num_computed_tokens, batch.chunks)),
            learning_rate=self.optimizers().param_groups[0]["lr"],
            gradient_norm=self._gradient_norm,
            phases=self._phases.pop(),
            source=batch.source,
            compiled_graphs=num_compiled_graphs() if self.settings.compile else None,
        )
