"""One evaluation in several forms of the embeddings: fewer dimensions, fewer bits.

Texts are embedded once. What an evaluator asks for is kept in files, and is cut and quantised for each view.
Shape letters: N texts, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import xxhash
from torch import Tensor

from inbatch.data.sources.columns import suggest
from inbatch.errors import ConfigError
from inbatch.evaluation.base import (
    Encode,
    EncodesOn,
    Evaluator,
    SharesSearch,
    prefix_key,
)
from inbatch.evaluation.parts import HasParts, names_of
from inbatch.evaluation.quantise import (
    PRECISIONS,
    WITH_RANGES,
    compared,
    quantise,
    ranges_of,
    wider,
)
from inbatch.files import fresh_folder, remove_abandoned

FULL = "float32"
Found = Mapping[str, float]  # what an evaluator returns


@dataclass(frozen=True, slots=True)
class View:
    """A form of the embeddings.

    dimension: how many of the first dimensions; None for all.
    precision: one of `quantise.PRECISIONS`.
    """

    dimension: int | None = None
    precision: str = FULL

    @property
    def label(self) -> str:
        """What names of metrics carry after the name of the set: "", "64", "int8", "64_int8"."""
        cut = "" if self.dimension is None else str(self.dimension)
        return "_".join(filter(None, (cut, "" if self.precision == FULL else self.precision)))

    @property
    def shown(self) -> str:
        """In words: "64 dimensions, int8"."""
        cut = "all" if self.dimension is None else str(self.dimension)
        return f"{cut} dimensions, {self.precision}"


def views_of(truncate_dims: Sequence[int], quantisations: Sequence[str]) -> tuple[View, ...]:
    """All dimensions in float32 first, then every other pair of a dimension and a precision.

    Args:
        truncate_dims: numbers of dimensions beside all of them.
        quantisations: names of PRECISIONS beside float32.

    Raises:
        ConfigError: a dimension below 1, or an unknown precision.
    """
    for dimension in truncate_dims:
        if dimension < 1:
            raise ConfigError(
                "evaluation.truncate_dims", "has a number below 1", "leave it out", value=dimension
            )
    for precision in quantisations:
        if precision not in PRECISIONS:
            raise ConfigError(
                "evaluation.quantisations",
                "is not known",
                suggest(str(precision), PRECISIONS),
                value=precision,
            )
    dimensions = dict.fromkeys((None, *sorted(truncate_dims, reverse=True)))
    precisions = dict.fromkeys((FULL, *quantisations))
    return tuple(View(dimension, name) for dimension in dimensions for name in precisions)


def check_views(views: Iterable[View], dimension: int) -> None:
    """Refuse views of more dimensions than a model has.

    Raises:
        ConfigError: there is one.
    """
    for view in views:
        if view.dimension is not None and view.dimension > dimension:
            raise ConfigError(
                "evaluation.truncate_dims",
                f"has more than the {dimension} dimensions of the model",
                f"set numbers up to {dimension}",
                value=view.dimension,
            )


class RankEncode(Encode, EncodesOn, SharesSearch, Protocol):
    """An `Encode` that ranks share, on a device that it names."""


class ViewedEncode:
    """Embeds each list of texts once, and gives it in the form of a view.

    The ranges of int8 are those of the documents that were embedded in the first view, which is that of all
    dimensions in float32; of all texts where a set has no documents. Quantised embeddings are brought
    to unit length first, as sentence-transformers' evaluators do. On disk there are 4 D bytes for each text
    of one set, in memory no more than one call gives.

    Args:
        encode: whose embeddings are kept.
        views: that will be asked for.
        folder: an empty one, for the files.
    """

    def __init__(self, encode: RankEncode, views: Sequence[View], folder: Path) -> None:
        self._encode, self._views, self._folder = encode, views, folder
        self._ranged = {view.dimension for view in views if view.precision in WITH_RANGES}
        self._ranges: dict[tuple[str | None, int | None], np.ndarray] = {}
        self.view = View()

    @property
    def device(self) -> torch.device:
        """Where texts are embedded."""
        return self._encode.device

    @property
    def rank(self) -> int:
        """Of this process."""
        return self._encode.rank

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self._encode.world_size

    def join(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """See `SharesSearch`."""
        return self._encode.join(rows, counts)

    def forget(self) -> None:
        """Remove what is kept, before the next set."""
        for path in self._folder.iterdir():
            path.unlink()
        self._ranges, self.view = {}, View()

    def each(self, evaluator: Evaluator) -> Iterator[Found]:
        """The metrics of one set in each view, whose embeddings are kept until the next set."""
        self.forget()
        for view in self._views:
            self.view = view
            yield evaluator(self)

    def __call__(
        self, texts: Sequence[str], *, role: str | None, prompt: str | None = None
    ) -> Tensor:
        """Embeddings of the texts in the form of `view`: float32 [N, D] on the CPU."""
        embeddings_ND = self._embedded(texts, role=role, prompt=prompt)
        cut = embeddings_ND[:, : self.view.dimension]
        if self.view.precision == FULL or not np.isfinite(cut).all():
            return torch.from_numpy(np.array(cut))
        stored = quantise(_unit(cut), self.view.precision, ranges_2D=self._ranges_for_view())
        values = compared(stored, self.view.precision, dimension=cut.shape[1])
        return torch.from_numpy(values)

    def _embedded(
        self, texts: Sequence[str], *, role: str | None, prompt: str | None
    ) -> np.ndarray:
        path = self._folder / f"{_digest(texts, role, prompt)}.npy"
        if path.exists():
            kept: np.ndarray = np.load(path, mmap_mode="r")
            return kept
        options = {} if prompt is None else {"prompt": prompt}
        embeddings_ND = self._encode(texts, role=role, **options).numpy()
        if self._ranged and len(embeddings_ND):
            for dimension in self._ranged:
                found = ranges_of(_unit(embeddings_ND[:, :dimension]))
                before = self._ranges.get((role, dimension))
                self._ranges[role, dimension] = wider(before, found)
        np.save(path, embeddings_ND)
        return embeddings_ND

    def _ranges_for_view(self) -> np.ndarray | None:
        dimension, found = self.view.dimension, None
        if ("document", dimension) in self._ranges:
            return self._ranges["document", dimension]
        for (_, ranged), ranges_2D in self._ranges.items():
            if ranged == dimension:
                found = wider(found, ranges_2D)
        return found


def evaluate_views(
    evaluators: Iterable[Evaluator],
    encode: RankEncode,
    views: Sequence[View],
    folder: Path,
    *,
    judged: Callable[[Evaluator, View, Found], None] = lambda *_: None,
) -> dict[str, float]:
    """Metrics of every evaluator in every view, ``{set}_{dimension}_{precision}_{metric}``.

    Args:
        evaluators: called once for each view; of one that `HasParts`, its parts are, one after another.
        encode: embeds every text once.
        views: of `views_of`, the first that of all dimensions in float32.
        folder: beside which embeddings are kept meanwhile, if there are several views.
        judged: called after each call of an evaluator, with the metrics as it returned them, and for one that
            `HasParts` after the calls of its parts, with those of all.
    """
    metrics: dict[str, float] = {}

    def judge(evaluator: Evaluator, call: Callable[[Evaluator], Iterator[Found]]) -> list[Found]:
        if isinstance(evaluator, HasParts):
            parts = [judge(part, call) for part in evaluator.evaluators]
            each: Iterable[Found] = map(evaluator.joined, zip(*parts, strict=True))
        else:
            each = call(evaluator)
        every = []
        for view, found in zip(views, each, strict=True):
            judged(evaluator, view, found)
            metrics.update(labelled(found, names_of(evaluator), view))
            every.append(found)
        return every

    remove_abandoned(folder)
    if len(views) == 1:
        for evaluator in evaluators:
            judge(evaluator, lambda one: iter([one(encode)]))
        return metrics
    with fresh_folder(folder) as kept:
        viewed = ViewedEncode(encode, views, kept)
        for evaluator in evaluators:
            judge(evaluator, viewed.each)
        viewed.forget()
    return metrics


def labelled(metrics: Mapping[str, float], names: Iterable[str], view: View) -> dict[str, float]:
    """Metrics with the label of a view after the name of their set."""
    return {labelled_key(key, names, view): value for key, value in metrics.items()}


def labelled_key(key: str, names: Iterable[str], view: View) -> str:
    """A metric's key with the label of a view after the name of its set, one of `names`."""
    if not view.label:
        return key
    fitting = [name for name in names if name and key.startswith(f"{name}_")]
    name = max(fitting, key=len, default="")
    rest = key[len(name) + 1 :] if name else key
    return prefix_key(name, f"{view.label}_{rest}")


def _unit(embeddings_ND: np.ndarray) -> np.ndarray:
    lengths_N1 = np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    return embeddings_ND / np.maximum(lengths_N1, np.float32(1e-12))


def _digest(texts: Sequence[str], role: str | None, prompt: str | None) -> str:
    digest = xxhash.xxh3_128()
    for part in (repr(role), repr(prompt), *texts):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
