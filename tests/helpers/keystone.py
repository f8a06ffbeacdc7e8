"""The keystone: the update of any number of ranks is that of one process with the global batch.

`reference` is written without the package's engine, gather and strategies: one encoder, one backward.
`distributed` trains the real module under the real Lightning strategy, one rank's slice each.
Updates are those of plain SGD, so their difference is the gradient's.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.projected_loss import Projected
from helpers.ragged_batches import collate_lists, flat_texts, make_rows, union_input
from helpers.tiny import tiny_texts
from inbatch import losses
from inbatch.batch.batch import Batch, Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.batch.slices import slice_rows
from inbatch.config.instantiate import instantiate
from inbatch.data.collate import Collator
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder, build_encoder
from inbatch.guide import LiveGuide
from inbatch.losses.base import Loss, LossInput
from inbatch.optim import Constant
from inbatch.run.module import BiEncoderModule
from inbatch.step.settings import StepSettings
from inbatch.strategies import SingleDevice, Strategy

LR = 0.5
OF_LOSS = "loss_parameters."  # before the names of what a loss trains
CONF = Path(__file__).parents[2] / "conf"


def _strategies() -> dict[str, Strategy]:
    """Every shipped strategy by the name of its file; with bounds that suit a test."""
    found = {}
    for file in sorted((CONF / "strategy").glob("*.yaml")):
        node = OmegaConf.load(file)
        accepts = inspect.signature(get_class(node._target_)).parameters
        few = {"timeout_s": 60.0, "persistence_threshold": 0}
        found[file.stem] = instantiate(node, **{key: few[key] for key in few if key in accepts})
    return found


def _losses() -> dict[str, Loss]:
    """Every shipped loss by the name of its file; sizes fit the tiny encoder."""
    found = {}
    for file in sorted((CONF / "loss").glob("*.yaml")):
        if not file.stem.startswith("cached_"):  # the same loss, see MODES of the tests
            node = OmegaConf.load(file)
            found[file.stem] = instantiate(
                node, **({"dims": [32, 16, 8]} if "dims" in node else {})
            )
    return found


#: Those that several ranks can run; `auto` resolves to one of them.
STRATEGIES = {
    name: strategy
    for name, strategy in _strategies().items()
    if name != "auto" and not strategy.offloads_optimizer
}
LOSSES: dict[str, Loss] = {
    **_losses(),
    "mnrl_all_directions": losses.MultipleNegativesRanking(
        directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
        temperature="learned",
    ),
    "gist": losses.GIST(temperature=0.05),
    "gist_relative": losses.GIST(
        temperature="learned", initial_temperature=0.0102, margin_strategy="relative", margin=0.1
    ),
    "scored": losses.WeightedSum(
        [
            losses.MultipleNegativesRanking(temperature="learned"),
            losses.MarginMSE(similarity="cosine"),
        ],
        [1.0, 0.5],
    ),
    "projected": Projected(),
    "embedding_projected": losses.EmbeddingMSE(projection=True),
    "in_batch_kl_all_directions": losses.InBatchKL(
        teacher_temperature=0.02,
        directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
    ),
    "mnrl_mask_margin": losses.MultipleNegativesRanking(
        directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
        mask_margin=0.05,
        mask_margin_strategy="relative",
        temperature="learned",
    ),
    "gist_self_guided": losses.GIST(temperature=0.05, self_guided=True),
    "gist_masked": losses.GIST(temperature=0.05, mask_duplicates=True),
}


def make_source(loss: Loss, num_rows: int) -> Source:
    """Triplets, or labelled pairs where the loss takes labels."""
    columns: dict[str, Any] = {
        "query": tiny_texts(num_rows, seed=1),
        "positive": tiny_texts(num_rows, seed=2),
    }
    if loss.needs_labels:
        columns["label"] = [float(i % 2) for i in range(num_rows)]
    elif loss.max_columns is None or loss.max_columns > 2:
        columns["negative"] = tiny_texts(num_rows, seed=3)
    if loss.needs_scores:
        for seed, name in enumerate(("positive_score", "negative_score")):
            columns[name] = np.random.default_rng(seed).uniform(-1, 1, num_rows).tolist()
    if loss.needs_text_ids:  # neighbours are on two ranks
        half = num_rows // 2
        columns["positive"][half] = columns["positive"][half - 1]
        columns["query"][-1] = columns["query"][0]
        columns["negative"][1] = columns["positive"][-1]
    return Source.from_columns("rows", columns)


def make_encoder(path: Path, dtype: torch.dtype, **options: Any) -> Encoder:
    """The tiny encoder in a given precision; the same weights on every call."""
    if options:
        return build_encoder(str(path), **options).to(dtype)
    return deepcopy(_saved(path, dtype))  # a fifth of the time that reading it takes


@cache
def _saved(path: Path, dtype: torch.dtype) -> Encoder:
    return build_encoder(str(path)).to(dtype)


def make_guide(path: Path) -> Encoder:
    """The tiny encoder with other weights, so that a student at its start has something to learn.

    In float64, so that its embeddings, which are kept in float32, do not depend on chunks.
    """
    guide, draws = make_encoder(path, torch.float64).eval(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draws)
    return guide


def reference(
    path: Path,
    loss: Loss,
    num_rows: int,
    num_steps: int,
    dtype: torch.dtype,
    *,
    clip_norm: float | None = None,
    encoder_options: dict[str, Any] | None = None,
    lists: bool = False,
) -> dict[str, Tensor]:
    """Parameters after SGD steps on the union batch, by one ordinary backward each.

    With `lists` rows have lists of documents, and each text is embedded as often as it occurs.
    """
    encoder = make_encoder(path, dtype, **(encoder_options or {}))
    chunk, see = _union_of_lists(encoder, num_rows) if lists else _union(encoder, loss, num_rows)
    order = torch.argsort(chunk.index)
    guide_ND = None
    if loss.needs_guide:
        with torch.no_grad():
            guide_ND = make_guide(path)(chunk)[order].float()
    of_loss, bounds = loss_parameters(loss, encoder)
    trained = [p for p in [*encoder.parameters(), *of_loss.values()] if p.requires_grad]
    for _ in range(num_steps):
        encoder.zero_grad()
        for parameter in of_loss.values():
            parameter.grad = None
        inputs = see(encoder(chunk)[order], guide_ND)
        loss(replace(inputs, parameters=of_loss)).loss.backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        with torch.no_grad():
            for parameter in trained:
                parameter -= LR * parameter.grad
            for name, most in bounds.items():
                of_loss[name].clamp_(max=most)
    return _named(encoder, of_loss)


def start_of(
    path: Path, loss: Loss, dtype: torch.dtype, **encoder_options: Any
) -> dict[str, Tensor]:
    """Parameters before the steps."""
    encoder = make_encoder(path, dtype, **encoder_options)
    named = _named(encoder, loss_parameters(loss, encoder)[0])
    return {name: parameter.detach().clone() for name, parameter in named.items()}


def loss_parameters(
    loss: Loss, encoder: Encoder
) -> tuple[dict[str, torch.nn.Parameter], dict[str, float]]:
    """What a loss trains, with its initial values, and bounds; the guide is like the encoder."""
    dim, dtype = encoder.output_dimension, next(encoder.parameters()).dtype
    found, bounds = {}, {}
    draws = torch.Generator().manual_seed(StepSettings().seed)
    for name, (shape, fill, most) in loss.parameters(dim=dim, guide_dim=dim).items():
        value = torch.empty(shape)
        fill(value, draws)
        found[name] = torch.nn.Parameter(value.to(dtype))
        if most is not None:
            bounds[name] = most
    return found, bounds


def _named(encoder: Encoder, of_loss: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {**dict(encoder.named_parameters()), **{f"{OF_LOSS}{n}": p for n, p in of_loss.items()}}
    return {name: p.detach().clone() for name, p in named.items()}


def _union(
    encoder: Encoder, loss: Loss, num_rows: int
) -> tuple[Chunk, Callable[[Tensor, Tensor | None], LossInput]]:
    """All texts, and what the loss sees of their embeddings."""
    batch = Collator(tokenizer=encoder.tokenizer)(
        make_source(loss, num_rows), np.arange(num_rows), step=0, num_global_rows=num_rows
    )
    ids = torch.from_numpy(batch.text_ids.view(np.int64)).unbind(0)

    def columns(of_texts_ND: Tensor) -> tuple[Tensor, ...]:
        return of_texts_ND.view(batch.num_columns, num_rows, -1).unbind(0)

    def see(values_ND: Tensor, guide_ND: Tensor | None) -> LossInput:
        guide = None if guide_ND is None else columns(guide_ND)
        rows = slice(0, num_rows)
        return LossInput(columns(values_ND), rows, batch.labels, guide, ids, scores=batch.scores)

    return batch.chunks[0], see


def _union_of_lists(
    encoder: Encoder, num_rows: int
) -> tuple[Chunk, Callable[[Tensor, Tensor | None], LossInput]]:
    rows = make_rows(num_rows)
    ids, prompt = encoder.tokenizer(texts := flat_texts(rows), "")
    (chunk,) = make_chunks(ids, [prompt] * len(texts), chunk_rows=None, chunk_tokens=None, pad_id=0)
    return chunk, partial(union_input, rows)


def distributed(
    rank: int,
    world_size: int,
    path: Path,
    strategy: Strategy,
    loss: Loss,
    num_rows: int,
    num_steps: int,
    dtype: torch.dtype,
    **options: Any,
) -> dict[str, Tensor]:
    """Parameters after the same steps, each rank holding its slice; whole on rank 0."""
    precision = options.pop("precision", None)
    encoder = make_encoder(path, dtype, **options.pop("encoder_options", {}))
    names = [name for name, _ in encoder.named_parameters()]
    guide = LiveGuide(make_guide(path)) if loss.needs_guide else None
    world = {"rank": rank, "world_size": world_size, "strategy": strategy, "guide": guide}
    module, batches = make_step(encoder, loss, num_rows, num_steps=num_steps, **world, **options)
    fit(module, batches, world_size, precision=precision)
    state = strategy.full_state(module.encoder, rank=rank)
    of_loss = strategy.full_state(module.loss_parameters, rank=rank)
    found = {name: state[name] for name in names} if state else {}
    return found | {name.replace("rows/", OF_LOSS): p for name, p in of_loss.items()}


def make_step(
    encoder: Encoder,
    loss: Loss,
    num_rows: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    strategy: Strategy | None = None,
    guide: LiveGuide | None = None,
    num_steps: int = 1,
    chunk_rows: int | None = None,
    lists: bool = False,
    counted: bool = True,
    **settings: Any,
) -> tuple[BiEncoderModule, list[Batch]]:
    """The real module, and a rank's slice of the same global batch for each step."""
    if lists:
        place: dict[str, Any] = {"rank": rank, "world_size": world_size, "counted": counted}
        rows = make_rows(num_rows)
        batch = collate_lists(rows, encoder.tokenizer, chunk_rows=chunk_rows, **place)
    else:
        collator = Collator(
            tokenizer=encoder.tokenizer, guide_tokenizer=encoder.tokenizer, chunk_rows=chunk_rows
        )
        own = slice_rows(np.arange(num_rows), rank, world_size)
        batch = collator(make_source(loss, num_rows), own, step=0, num_global_rows=num_rows)
    module = BiEncoderModule(
        encoder=encoder,
        losses={"rows": loss},
        strategy=strategy or SingleDevice(),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=LR),
        schedule=Constant(),
        guide=guide,
        settings=StepSettings(**{"clip_norm": None, **settings}),
    )
    return module, [batch._replace(step=step) for step in range(num_steps)]


def fit(module: BiEncoderModule, batches: list[Batch], world_size: int, **options: Any) -> Trainer:
    """One epoch over ready batches under the module's strategy."""
    strategy = module.strategy.lightning_strategy(
        accelerator="cpu",
        num_processes=world_size,
        num_nodes=1,
        clip_norm=module.settings.clip_norm,
    )
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options}
    trainer = Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy=strategy,
        plugins=[TorchElasticEnvironment()] if world_size > 1 else None,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    loader: DataLoader[Batch] = DataLoader(
        batches,  # type: ignore[arg-type]
        batch_size=None,
        shuffle=False,
        collate_fn=lambda batch: batch,
    )
    trainer.fit(module, loader)
    return trainer


def relative_error(
    found: dict[str, Tensor], wanted: dict[str, Tensor], start: dict[str, Tensor]
) -> float:
    """Norm of the difference of two updates over the norm of the wanted update.

    The larger of those of the encoder and of what the loss trains.
    """
    assert found.keys() == wanted.keys()
    errors = []
    for of_loss in (False, True):
        names = [name for name in wanted if name.startswith(OF_LOSS) is of_loss]
        if names:
            f, w, s = (
                torch.cat([d[n].double().flatten() for n in names]) for d in (found, wanted, start)
            )
            errors.append(float((f - w).norm() / (w - s).norm()))
    return max(errors)


def collectives_of(step: Callable[[], Any]) -> dict[str, int]:
    """Collectives that reached the backend while `step` ran, those of DDP's reducer included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    # Not `events()`, which makes a tree of all operators: that takes ten times as long as the step.
    names = (event.name() for event in profiler.profiler.kineto_results.events())
    return dict(Counter(name for name in names if name.startswith("gloo:")))


def quiet() -> None:
    """Ranks report through the harness, not through their logs."""
    import logging
    import warnings

    os.environ["DS_ACCELERATOR"] = "cpu"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
