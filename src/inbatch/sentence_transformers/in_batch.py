"""A loss of inbatch as a module that the trainer of sentence-transformers calls.

Shape letters: C columns, b rows of this rank, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inbatch.batch.batch import Chunk
from inbatch.device.allocator import keep_freed_memory
from inbatch.device.memory import free_bytes
from inbatch.gather import GlobalGather, LocalGather, rank_and_world_size
from inbatch.gather.gather import Gather, Rows
from inbatch.gradcache import Embeddings, Engine, KeepBudget, backward, embed
from inbatch.losses.base import Loss, LossInput
from inbatch.sentence_transformers.features import Features, chunks_of, features_of, token_lists
from inbatch.sentence_transformers.guide_store import GuideStore
from inbatch.step.gradient_sync import AverageGradients
from inbatch.step.loss_gradient import LossGradient, loss_gradient

KEPT_SHARE = (
    0.3  # of the memory that is free at the first step, for graphs that need no second forward
)
GIB = 1 << 30


class InBatchLoss(nn.Module):
    """Computes a loss and its gradient in forward, and adds that to the parameters in backward.

    Under DistributedDataParallel the model inside of it is called, and gradients are averaged over ranks once
    a step, after its last chunk.

    Args:
        model: the SentenceTransformer that is trained.
        loss: of the columns of a batch.
        guide: a SentenceTransformer for losses that need one.
        mini_batch_size: most texts of a chunk; None for one chunk.
        mini_batch_num_tokens: most tokens of a chunk.
        gather_across_devices: contrast with the rows of all ranks.
        keep_gib: GiB of graphs that are held, so that their texts need no second forward: None for all,
            "auto" for a share of what is free at the first step.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        guide: nn.Module | None = None,
        mini_batch_size: int | None = None,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        keep_gib: float | str | None = "auto",
    ) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.gather_across_devices = gather_across_devices
        self._objective = loss
        self._keep_gib = keep_gib
        self._budget: KeepBudget | None = None
        self._store = None if guide is None else GuideStore(model, guide)

    def forward(
        self, sentence_features: Iterable[Features], labels: Tensor | None = None
    ) -> Tensor:
        """The loss of this rank's rows.

        Args:
            sentence_features: of the columns: queries, positives, negatives.
            labels: not used.
        """
        columns = list(sentence_features)
        tokens = [token_lists(features) for features in columns]
        chunks = chunks_of(
            columns,
            tokens,
            rows=self.mini_batch_size,
            most_tokens=self.mini_batch_num_tokens,
            pad_id=self._inner.tokenizer.pad_token_id or 0,
        )
        engine = Engine(
            encode=partial(self._encode, like=columns[0]),
            backward=Tensor.backward,
            gradient_sync=lambda last: nullcontext(),
        )
        trains = torch.is_grad_enabled()
        with nullcontext() if trains else torch.no_grad():
            embeddings = embed(engine, chunks, num_keep=self._kept(chunks) if trains else 0)
        with torch.enable_grad():
            found = self._gradient(embeddings, columns, tokens)
        if not trains:
            return found.loss
        value = found.loss.detach().requires_grad_()
        value.register_hook(partial(self._backward, engine, embeddings))
        return value

    def chunk_settings(self) -> dict[str, Any]:
        """Settings of gradient caching, for the model card; none without it."""
        if self.mini_batch_size is None:
            return {}
        names = ("mini_batch_size", "mini_batch_num_tokens")
        return {name: getattr(self, name) for name in names}

    @property
    def citation(self) -> str:
        """BibTeX, for the model card."""
        published = self._objective.published
        return (published and published.bibtex) or ""

    @property
    def _inner(self) -> Any:
        """The model, without what wraps it for several ranks."""
        wrapped = isinstance(self.model, DistributedDataParallel)
        return self.model.module if wrapped else self.model

    def _kept(self, chunks: Sequence[Chunk]) -> int:
        if self._budget is None:
            keep_freed_memory()
            share = KEPT_SHARE * free_bytes(chunks[0].input_ids.device) / GIB
            self._budget = KeepBudget(share if self._keep_gib == "auto" else self._keep_gib)  # type: ignore[arg-type]
        return self._budget.num_keep(chunks)

    def _encode(self, chunk: Chunk, *, like: Features) -> Tensor:
        model, budget = self._inner, self._budget
        weighs = budget is not None and budget.wants_measure and torch.is_grad_enabled()
        held = list(model.parameters()) if weighs else []
        with budget.measure(chunk.input_ids.numel(), held) if weighs and budget else nullcontext():
            embedded: Tensor = model(features_of(chunk, like))["sentence_embedding"]
        return embedded

    def _gradient(
        self,
        embeddings: Embeddings,
        columns: Sequence[Features],
        tokens: Sequence[Sequence[list[int]]],
    ) -> LossGradient:
        """The loss, and its gradient with respect to the texts of this rank."""
        num_rows = len(tokens[0])
        gather, rows = self._rows(num_rows)
        local = embeddings.values_ND.view(len(columns), num_rows, -1)
        gathered = gather.embeddings(local, rows)
        inputs = LossInput(gathered, rows.owned, guide=self._guides(tokens, gather, rows))
        found = loss_gradient(self._objective.settled(lists=False), inputs, weight=1.0)
        embeddings.differentiate(gathered, found.columns)
        return found

    def _rows(self, num_rows: int) -> tuple[Gather, Rows]:
        rank, world_size = rank_and_world_size()
        if self.gather_across_devices and world_size > 1:
            return (gather := GlobalGather(rank, world_size)), gather.rows(
                num_rows, num_rows * world_size
            )
        return (alone := LocalGather()), alone.rows(num_rows, num_rows)

    def _guides(
        self, tokens: Sequence[Sequence[list[int]]], gather: Gather, rows: Rows
    ) -> tuple[Tensor, ...] | None:
        if self.guide is None or self._store is None:
            return None
        embedded = self._store(self.guide, [ids for column in tokens for ids in column])
        local = embedded.view(len(tokens), len(tokens[0]), -1)
        return tuple(gather.start_data(list(local), rows).wait())

    def _backward(self, engine: Engine, embeddings: Embeddings, scale: Tensor) -> None:
        """Add the gradient, times that of what the trainer made of the loss; at a step's end, over ranks."""
        assert embeddings.gradient_ND is not None
        embeddings.gradient_ND = embeddings.gradient_ND * scale
        with torch.enable_grad():
            backward(engine, embeddings)
        ends_step = getattr(self.model, "require_backward_grad_sync", False)
        if isinstance(self.model, DistributedDataParallel) and ends_step:
            sync = AverageGradients([p for p in self.model.parameters() if p.grad is not None])
            sync.start()
            sync.finish()
