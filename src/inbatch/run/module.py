"""The LightningModule: a shell that gives `ContrastiveStep` to Lightning's loop.

Optimization is always manual, so that gradient caching and the ordinary forward share one path, one place
for clipping and no tensor hooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from inbatch.batch.batch import Batch
from inbatch.compat import num_compiled_graphs
from inbatch.encoder import Encoder
from inbatch.gather import largest, whole
from inbatch.guide import Guide, Process
from inbatch.losses.base import Loss
from inbatch.optim import Schedule, parameter_groups, step_again, to_lambda_lr
from inbatch.run.adapter_checkpoint import check_frozen, drop_frozen
from inbatch.run.optimizer_state import count_epochs, name_optimizer_states
from inbatch.step.contrastive_step import ContrastiveStep, StepOutput
from inbatch.step.finite import FiniteWatch, Place
from inbatch.step.loss_parameters import LossParameters
from inbatch.step.report import StepReport
from inbatch.step.seeding import accumulation
from inbatch.step.settings import StepSettings
from inbatch.strategies import Strategy


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
        self.strict_loading = encoder.adapter is None  # else frozen weights are in no checkpoint
        self.losses = dict(losses)  # source name -> loss
        self.settings = settings or StepSettings()
        self.loss_parameters = LossParameters(
            losses,
            dim=encoder.output_dimension,
            guide_dim=None if guide is None else guide.dimension,
            like=next(p for p in encoder.parameters() if p.requires_grad).detach(),
            seed=self.settings.seed,
        )
        self.strategy = strategy
        self.last_step: StepReport | None = None
        self.step: ContrastiveStep  # made when the strategy is set up
        self._make_optimizer = optimizer
        self._schedule = schedule
        self._guide = guide
        self._gradient_norm: Tensor | None = None
        self._batch: Batch | None = None  # of the optimizer step under way
        self.place = Place(0, 0, "")
        self.watch = FiniteWatch(self.settings.on_nonfinite, tolerated=self.settings.tolerated)

    def limit_kept(self, keep_gib: float | None) -> None:
        """Set the GiB of graphs that may be kept, before the step is made."""
        self.settings = replace(self.settings, keep_gib=keep_gib)

    def configure_model(self) -> None:
        """Shard parameters where the strategy does."""
        # A compiled graph ends at each unit, so its units are few, and gathered in float32.
        mixed = self.trainer.precision == "bf16-mixed" and not self.settings.compile
        self.strategy.shard(self.encoder, self.device_mesh, mixed=mixed)
        self.strategy.place(self.loss_parameters, self.device_mesh)

    def configure_optimizers(self) -> Any:
        """The optimizer over decay and no-decay groups, and the schedule over all steps of the run."""
        rates = self.settings.learning_rate_mapping
        groups = parameter_groups(self._trained(), learning_rate_mapping=rates)
        optimizer = self._make_optimizer(groups)
        step_again(optimizer, self._keep_fewer)
        scheduler = to_lambda_lr(optimizer, self._schedule, self.total_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters of the encoder by their names in it, and of losses."""
        of_losses = self.loss_parameters.named_parameters(prefix="loss_parameters")
        return [*self.encoder.named_parameters(), *of_losses]

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
        """Make the step, now that the strategy is set up; this starts the guide."""
        sync = self.strategy.gradient_sync(self.encoder, self.trainer)
        with self.trainer.precision_plugin.forward_context():
            self.encoder.check_packing(self.device)
        if self.settings.compile:
            self.encoder.compile_backbone()
        self.step = ContrastiveStep(
            self.encoder,
            self.losses,
            loss_parameters=self.loss_parameters,
            guide=self._guide,
            gather=self.settings.gather,
            keep_gib=self.settings.keep_gib,
            seed=self.settings.seed,
            gradient_sync=sync,
            collective_forward=self.strategy.collective_forward,
            compiled=self.settings.compile,
            backward=self.manual_backward,
            process=self._process(),
        )

    def _process(self) -> Process:
        strategy, bar = self.trainer.strategy, self.trainer.progress_bar_callback
        return Process(
            device=strategy.root_device,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            barrier=strategy.barrier,
            most=partial(largest, device=strategy.root_device),
            say=lambda line: None if bar is None else bar.print(line),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Key optimizer state by parameter name, so that another strategy can load it."""
        name_optimizer_states(
            self.trainer.optimizers, checkpoint["optimizer_states"], self.named_parameters()
        )
        count_epochs(checkpoint["loops"]["fit_loop"])
        drop_frozen(checkpoint, self.encoder)
        checkpoint["num_skipped"] = self.watch.num_skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another plan before its weights are loaded."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None:
            data.check_checkpoint(checkpoint)
        check_frozen(checkpoint, self.encoder)
        self.watch.num_skipped = checkpoint.get("num_skipped", 0)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the gradient of a batch; an optimizer step after every `accumulate` batches."""
        position, size = accumulation(
            batch.step, int(self.trainer.num_training_batches), self.settings.accumulate
        )
        self._gradient_norm = None
        self.place = Place(self.global_step + 1, batch.step, batch.source)
        output = self.step(batch, epoch=self.current_epoch, position=position, size=size)
        if position == size - 1:
            self._batch = output.batch
            self._step_optimizer()
            self._batch = None
        self._report(output)

    def _keep_fewer(self) -> bool:
        """Have further steps keep fewer graphs, since the optimizer has run out of memory."""
        return self._batch is not None and self.step.keep_fewer(self._batch, "the optimizer")

    def _step_optimizer(self) -> None:
        optimizer = cast(Optimizer, self.optimizers())
        schedule = cast(torch.optim.lr_scheduler.LRScheduler, self.lr_schedulers())
        with self.step.timer.measure("optimizer"):
            optimizer.step()
            self.loss_parameters.clamp(self.strategy.limit)
            optimizer.zero_grad()
        if self.strategy.clips_gradients:
            self._gradient_norm = norm = self.strategy.gradient_norm(self.trainer)
            if norm is not None:
                self.watch.may_step(norm, (), self.place)
        schedule.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip by the global norm; here gradients are unscaled and reduced.

        Raises:
            NonFiniteGradient: there is no use in going on.
        """
        if self.strategy.clips_gradients:
            return
        named = [(n, p) for n, p in self._trained() if p.grad is not None]
        gradients = [(name, p.grad) for name, p in named if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([gradient for _, gradient in gradients])
        self._gradient_norm = whole(norm)
        if not self.watch.may_step(self._gradient_norm, gradients, self.place):
            optimizer.zero_grad()  # an optimizer passes over parameters without gradient
        elif self.settings.clip_norm is not None:
            parameters = [p for _, p in named]
            torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)

    def _report(self, output: StepOutput) -> None:
        batch = output.batch
        self.last_step = StepReport(
            loss=output.loss,
            metrics=output.metrics,
            num_rows=batch.num_global_rows,
            num_tokens=batch.num_tokens,
            num_texts=sum(chunk.num_texts for chunk in batch.chunks),
            num_padded_tokens=sum(map(self.encoder.num_computed_tokens, batch.chunks)),
            learning_rate=cast(Optimizer, self.optimizers()).param_groups[0]["lr"],
            gradient_norm=self._gradient_norm,
            phases=self.step.timer.pop(),
            source=batch.source,
            num_skipped=self.watch.num_skipped,
            compiled_graphs=num_compiled_graphs() if self.settings.compile else None,
        )
