"""The LightningDataModule: sources and a sampler become each rank's batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from inbatch.batch.batch import Batch
from inbatch.batch.transfer import PackedBatch, pack
from inbatch.data.collate import BatchDataset, Collator, check_mixable
from inbatch.data.plan.fingerprint import check_same_plan, plan_fingerprint
from inbatch.data.plan.plan import GlobalBatch, Plan, Sampler, SourceInfo, StreamInfo
from inbatch.data.plan.rank_feed import Position, RankFeed
from inbatch.data.sources.load import Source
from inbatch.data.sources.tokens import check_tokens, describe_tokens
from inbatch.data.tokenized import Tokenize
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError
from inbatch.guide.fingerprint import hash_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSettings:
    """How batches are read.

    num_workers: processes that read and tokenize ahead; 0 reads in the training process.
    prefetch: batches that each worker holds ready.
    """

    num_workers: int = 0
    prefetch: int = 2


class BatchModule(LightningDataModule):
    """Feeds global batches; the plan depends on data, seed and batch size, never on ranks."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        sampler: Sampler,
        collator: Collator,
        global_batch_size: int,
        seed: int,
        drop_last: bool,
        accumulate: int = 1,
        one_loss: bool = True,
        loader: LoaderSettings | None = None,
    ) -> None:
        super().__init__()
        check_stored_tokens(sources, collator)
        self._sources = list(sources)
        self._infos = [source_info(source) for source in sources]
        self._sampler = sampler
        self._collator = collator
        self._global_batch_size = global_batch_size
        self._seed = seed
        self._drop_last = drop_last
        self._accumulate = accumulate
        self._one_loss = one_loss
        self._loader = loader or LoaderSettings()
        self._plan: Plan | None = None
        self._feed: RankFeed | None = None
        self._saved: Position | None = None  # position of a loaded checkpoint
        self._position: Position | None = None  # after the last batch trained on

    def plan(self, epoch: int) -> Plan:
        """The global batches of an epoch; the last one asked for is kept."""
        if self._plan is None or self._plan.epoch != epoch:
            self._plan = self._make_plan(epoch)
        return self._plan

    def _make_plan(self, epoch: int) -> Plan:
        plan = self._sampler.plan(
            self._infos,
            global_batch_size=self._global_batch_size,
            seed=self._seed,
            epoch=epoch,
            drop_last=self._drop_last,
        )
        if plan.mixture is not None:
            check_mixable(self._sources, one_loss=self._one_loss)
        if plan.num_steps == 0:
            raise ConfigError(
                "global_batch_size",
                f"is more than the sources can fill ({sum(i.num_rows for i in self._infos)} rows)",
                "lower it, or set drop_last=false",
                value=self._global_batch_size,
            )
        return plan

    @cached_property
    def batches_per_epoch(self) -> int:
        """Global batches of each epoch of the run, see `RankFeed`."""
        return self.plan(0).num_steps

    @property
    def batches_done(self) -> int:
        """Global batches of the run that have been trained on, those before a resume too."""
        place = self._position
        return 0 if place is None else place["epoch"] * self.batches_per_epoch + place["step"]

    def rows_between(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Row numbers, ascending, that batches of the first epoch hold, by source name."""
        plan = self.plan(0)
        found: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        for batch in map(plan.batch, range(start, stop)):
            for number, source in enumerate(self._sources):
                if batch.sources is not None:
                    found[source.name].append(batch.rows[batch.sources == number])
                elif batch.source == number:
                    found[source.name].append(batch.rows)
        return {name: np.unique(np.concatenate(rows)) for name, rows in found.items()}

    def train_dataloader(self) -> DataLoader[PackedBatch]:
        """This rank's batches, wrapped, from where a loaded checkpoint stopped."""
        assert self.trainer is not None
        self._feed = RankFeed(
            self.plan,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            document_counts=self._document_counts,
        )
        if self._saved is not None:
            self._feed.resume(self._saved)
            self._saved = None
        workers = self._loader.num_workers
        return _Resumable(
            BatchDataset(self._sources, self._collator, seed=self._seed),  # type: ignore[arg-type] # wrapped by `pack`
            sampler=self._feed,
            batch_size=None,
            collate_fn=pack,  # type: ignore[arg-type] # without a batch size it gets one batch
            num_workers=workers,
            prefetch_factor=self._loader.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",  # for asynchronous copies
        )

    def _document_counts(self, batch: GlobalBatch) -> np.ndarray | None:
        """Documents that each row of a global batch brings, int64 [B]; None where rows have no lists."""
        if batch.sources is None:
            ragged = self._sources[batch.source].ragged
            return None if ragged is None else ragged.document_counts(batch.rows)
        counts_B = np.zeros(len(batch.rows), dtype=np.int64)
        for number, source in enumerate(self._sources):
            if source.ragged is None:  # as of all others, see `check_mixable`
                return None
            places = np.flatnonzero(batch.sources == number)
            counts_B[places] = source.ragged.document_counts(batch.rows[places])
        return counts_B

    def limit_chunks(self, chunk_tokens: int | None) -> None:
        """Set the computed tokens that a chunk may have, before batches are read."""
        self._collator = replace(self._collator, chunk_tokens=chunk_tokens)

    def transfer_batch_to_device(
        self, batch: PackedBatch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """The batch itself, on the device; without waiting for it."""
        return batch.open(device)

    def trained(self, step: int) -> None:
        """Note that the batch of a step has been trained on."""
        assert self._feed is not None
        self._position = self._feed.position_after(step)

    def rows_of_batch(self, number: int) -> np.ndarray:
        """Rows of the global batch with this number in the epoch, int64 [B], as numbered in their source."""
        assert self._feed is not None
        return self._feed.global_rows(number)

    def state_dict(self) -> dict[str, Any]:
        """Position after the last trained batch, and what the plan was made of."""
        return {"fingerprint": self.fingerprint, "position": self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a saved plan, which `check_checkpoint` has compared with this one."""
        self._saved = self._position = state_dict["position"]

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Check that a checkpoint, given by its entries, belongs to the plan of this run.

        Raises:
            ConfigError: it belongs to another plan; the difference is named.
        """
        saved = checkpoint.get(type(self).__qualname__)
        if saved is None:
            raise ConfigError(
                "resume",
                "names a checkpoint that says nothing about its batches",
                "name one of a run, or set auto or never",
            )
        check_same_plan(saved["fingerprint"], self.fingerprint)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """All that the steps depend on; made once in a run, since it reads all hashes, keys and labels."""
        plan = plan_fingerprint(
            self._infos,
            self._sampler,
            global_batch_size=self._global_batch_size,
            seed=self._seed,
            drop_last=self._drop_last,
        )
        return {**plan, "accumulate": self._accumulate}


def source_info(source: Source) -> SourceInfo:
    """A source as samplers see it."""
    ragged = source.ragged
    return SourceInfo(
        name=source.name,
        num_rows=source.num_rows,
        hashes=source.text_hashes if ragged is None else None,
        stream=None
        if source.streamed is None
        else StreamInfo(source.streamed.file_rows, source.streamed.buffer_files),
        keys=None if source.roles.key is None else cast(Callable[[], np.ndarray], source.keys),
        labels=cast(Callable[[], np.ndarray], source.labels) if source.has_labels else None,
        scores=cast(Callable[[], np.ndarray], source.scores) if source.roles.scores else None,
        conflicts=None if ragged is None else ragged.conflict_hashes,
        ragged=None if ragged is None else ragged.hashes,
        lists=None if ragged is None else asdict(ragged.choice),
    )


def describe_tokenizer(tokenizer: Tokenize, prompts: Sequence[str]) -> dict[str, Any]:
    """Everything that stored token ids of these prompts depend on."""
    assert isinstance(tokenizer, TextTokenizer)  # others cannot be told apart
    return describe_tokens(
        tokenizer=hash_tokenizer(tokenizer),
        vocab_size=tokenizer.vocab_size,
        max_length=tokenizer.max_length,
        prompts=prompts,
    )


def check_stored_tokens(sources: Sequence[Source], collator: Collator) -> None:
    """Check that the tokens that sources bring along are those of the encoder.

    Raises:
        ConfigError: they were made with another tokenizer, length or prompt.
    """
    for source in sources:
        if source.tokens is not None:
            wanted = describe_tokenizer(collator.tokenizer, collator.column_prompts(source))
            check_tokens(source.tokens.description, wanted, field=f"data.train.{source.name}.path")


class _Resumable(DataLoader[PackedBatch]):
    """Lightning takes a loader for resumable if it has these methods.

    The position itself is in the DataModule's state, beside the fingerprint of the plan it belongs to.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing of its own."""
