"""Losses of rows with lists by their definition: one row and one positive at a time, no engine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from inbatch.losses.base import LossInput, VisibleDocuments

Row = tuple[str, list[str], list[str]]  # query, positives, negatives


@dataclass(frozen=True)
class Definition:
    """A loss in plain terms; names as in MultipleNegativesRanking and GIST."""

    form: str = "each"
    directions: frozenset[str] = frozenset({"query_to_doc"})
    per_direction: bool = False
    temperature: float = 0.1
    similarity: str = "cosine"
    hardness_mode: str | None = None
    hardness_strength: float = 0.0
    masked: bool = False
    negatives: str = "all"
    margin: float | None = None  # of a guide; positives are then compared with positives only
    relative: bool = False
    own_mask: bool = False  # the margin is of the model's own scores, and compares with all


@dataclass
class RaggedBatch:
    """Rows, and embeddings of queries, documents and a guide."""

    rows: list[Row]
    columns: tuple[Tensor, Tensor]
    guide: tuple[Tensor, Tensor]
    owner: list[int] = field(init=False)
    is_positive: list[bool] = field(init=False)
    texts: list[str] = field(init=False)  # of the documents

    def __post_init__(self) -> None:
        flat = [
            (i, k < len(p), t) for i, (_, p, n) in enumerate(self.rows) for k, t in enumerate(p + n)
        ]
        self.owner, self.is_positive, self.texts = map(list, zip(*flat))

    def inputs(
        self, rows: slice | None = None, columns: Sequence[Tensor] | None = None
    ) -> LossInput:
        """What the loss sees."""
        rows = rows or slice(0, len(self.rows))
        counts = np.array([len(p) + len(n) for _, p, n in self.rows])
        positives = np.array([len(p) for _, p, _ in self.rows])
        numbers = {t: i * 7919 for i, t in enumerate({*self.texts, *(q for q, _, _ in self.rows)})}
        ids = [
            torch.tensor([numbers[q] for q, _, _ in self.rows]),
            torch.tensor([numbers[t] for t in self.texts]),
        ]
        documents = VisibleDocuments(
            owner=torch.tensor(self.owner),
            is_positive=torch.tensor(self.is_positive),
            first=int(counts[: rows.start].sum()),
            counts=counts[rows],
            positives=positives[rows],
        )
        return LossInput(
            tuple(columns or self.columns),
            rows,
            guide=self.guide,
            text_ids=tuple(ids),
            documents=documents,
        )


def make_batch(
    num_rows: int,
    *,
    shared: float = 0.0,
    seed: int = 0,
    dim: int = 8,
    most_positives: int = 4,
    negatives: Sequence[int] = (0, 0, 1, 3),
) -> RaggedBatch:
    """Random rows, of whose texts a share is drawn from a small pool."""
    draw = random.Random(seed)
    pool = [f"t{i}" for i in range(max(3, int(6 * num_rows * (1 - shared))))]
    text = lambda name: draw.choice(pool) if draw.random() < shared else name  # noqa: E731
    rows = [
        (
            text(f"q{i}"),
            [text(f"p{i}.{k}") for k in range(draw.randint(1, most_positives))],
            [text(f"n{i}.{k}") for k in range(draw.choice(negatives))],
        )
        for i in range(num_rows)
    ]
    generator = torch.Generator().manual_seed(seed)
    embed = lambda n, d: torch.randn(n, d, generator=generator, dtype=torch.float64)  # noqa: E731
    num_docs = sum(len(p) + len(n) for _, p, n in rows)
    return RaggedBatch(
        rows, (embed(num_rows, dim), embed(num_docs, dim)), (embed(num_rows, 5), embed(num_docs, 5))
    )


def dense(batch: RaggedBatch, columns: Sequence[Tensor], loss: Definition) -> list[Tensor]:
    """The loss of each row."""
    if loss.similarity == "cosine":
        columns = [normalize(column, dim=1) for column in columns]
    guide = [normalize(column, dim=1) for column in batch.guide]
    if loss.own_mask:
        guide = [column.detach() for column in columns]
    return [_row(batch, columns, guide, loss, i) for i in range(len(batch.rows))]


def _row(
    batch: RaggedBatch, columns: Sequence[Tensor], guide: Sequence[Tensor], loss: Definition, i: int
) -> Tensor:
    q, x = columns
    rows, docs = range(len(batch.rows)), range(len(batch.texts))
    texts = [{query, *positives} for query, positives, _ in batch.rows]
    related = {j for j in rows if texts[i] & texts[j]} if loss.masked else {i}
    own_positives = [c for c in docs if batch.owner[c] == i and batch.is_positive[c]]
    candidates = [
        c
        for c in docs
        if not (batch.is_positive[c] and batch.owner[c] in related)
        and not (loss.masked and batch.texts[c] in texts[i])
        and (loss.negatives == "all" or batch.is_positive[c] or batch.owner[c] == i)
    ]
    other_rows = [j for j in rows if j not in related]
    others = [c for c in candidates if batch.owner[c] != i]
    if loss.margin is not None and not loss.own_mask:
        others = [c for c in others if batch.is_positive[c]]
    z = lambda a, b: (a @ b) / loss.temperature  # noqa: E731

    def hardened(c: int) -> bool:
        own = batch.owner[c] == i
        return (own and loss.hardness_mode in ("hard_negatives", "all_negatives")) or (
            not own and loss.hardness_mode in ("in_batch_negatives", "all_negatives")
        )

    def logit(c: int) -> Tensor:
        score = q[i] @ x[c]
        extra = loss.hardness_strength * score.detach() if hardened(c) else 0.0
        return score / loss.temperature + extra

    def threshold(p: int) -> float:
        score = float(guide[0][i] @ guide[1][p])
        assert loss.margin is not None
        return score - (abs(score) * loss.margin if loss.relative else loss.margin) + 1e-12

    def of_row(limit: float | None) -> list[Tensor]:
        keep = lambda a, b: limit is None or float(a @ b) <= limit  # noqa: E731
        found = [logit(c) for c in candidates if keep(guide[0][i], guide[1][c])]
        if "query_to_query" in loss.directions:
            found += [z(q[i], q[j]) for j in other_rows if keep(guide[0][i], guide[0][j])]
        return found

    def queries(p: int) -> list[int]:
        """Those of other rows that are no false negatives of a positive."""
        limit = None if loss.margin is None else threshold(p)
        keep = lambda j: limit is None or float(guide[1][p] @ guide[0][j]) <= limit  # noqa: E731
        return [j for j in other_rows if keep(j)]

    def of_positive(p: int) -> list[Tensor]:
        found = []
        if "doc_to_query" in loss.directions and not loss.per_direction:
            found += [z(x[p], q[j]) for j in (i, *queries(p))]
        if "doc_to_doc" in loss.directions:
            limit = None if loss.margin is None else threshold(p)
            keep = [c for c in others if limit is None or float(guide[1][p] @ guide[1][c]) <= limit]
            found += [z(x[p], x[c]) for c in keep]
        return found

    limits = [None if loss.margin is None else threshold(p) for p in own_positives]
    positive = {p: z(q[i], x[p]) for p in own_positives}
    add = lambda logits: torch.stack(logits).logsumexp(0)  # noqa: E731
    if loss.form == "sum":
        lowest = (
            None if loss.margin is None else min(limit for limit in limits if limit is not None)
        )
        all_negatives = of_row(lowest) + [n for p in own_positives for n in of_positive(p)]
        value = add([*positive.values(), *all_negatives]) - add(list(positive.values()))
    else:
        terms = []
        for p, limit in zip(own_positives, limits):
            top = [positive[p]] if loss.form == "each" else list(positive.values())
            terms.append(add([*top, *of_row(limit), *of_positive(p)]) - positive[p])
        value = torch.stack(terms).mean()
    if loss.per_direction and "doc_to_query" in loss.directions:
        backward = [
            add([positive[p], *(z(x[p], q[j]) for j in queries(p))]) - positive[p]
            for p in own_positives
        ]
        value = (value + torch.stack(backward).mean()) / 2
    return value


def value_and_gradients(values: Tensor, columns: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """A loss and its gradients, zero where it does not depend on a column."""
    gradients: Any = torch.autograd.grad(
        values, list(columns), allow_unused=True, materialize_grads=True
    )
    return values.detach(), list(gradients)
