"""Several retrieval sets as one: each by itself, and the mean over them, as `NanoBEIREvaluator` has it.

They are the folders of a folder, or the sets of a data set on the hub in the layout of NanoBEIR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from inbatch.data.sources.columns import suggest
from inbatch.data.sources.config_keys import RETRIEVAL_PARTS
from inbatch.errors import ConfigError
from inbatch.evaluation.base import Encode, EvaluationRows, prefix_key
from inbatch.evaluation.information_retrieval import InformationRetrievalEvaluator
from inbatch.evaluation.parts import MEAN
from inbatch.evaluation.retrieval_files import read_retrieval_data
from inbatch.evaluation.retrieval_folder import has_corpus
from inbatch.evaluation.retrieval_hub import hub_name, read_hub_set, sets_of
from inbatch.evaluation.retrieval_spec import OPTIONS, retrieval_spec
from inbatch.evaluation.rows import check_limit

_HUB_KEYS = ("hub", "sets", "limit")


@final
class RetrievalSetsEvaluator:
    """Retrieval on several sets, and the mean of each metric over them.

    Keys ``{set}_{metric}`` of each set and ``{name}_mean_{metric}``, so with the name NanoBEIR they are those
    of sentence-transformers. The primary metric is the mean nDCG.

    Args:
        parts: an evaluator for each set, alike but for their data.
        name: prefix of the means.
    """

    description: ClassVar[str] = "Information Retrieval"

    def __init__(self, parts: Sequence[InformationRetrievalEvaluator], *, name: str = "") -> None:
        self.evaluators = tuple(parts)
        self.name = name

    @property
    def follows_model(self) -> bool:
        """Whether no similarity was given."""
        return all(part.follows_model for part in self.evaluators)

    @property
    def similarity(self) -> tuple[str, ...]:
        """What embeddings are compared by."""
        return self.evaluators[0].similarity

    @similarity.setter
    def similarity(self, value: tuple[str, ...]) -> None:
        for part in self.evaluators:
            part.similarity = value

    @property
    def primary_metric(self) -> str:
        """Full key of the mean nDCG."""
        first = self.evaluators[0]
        return self._mean_key(_own(first.primary_metric, first.name))

    def metric_names(self) -> tuple[str, ...]:
        """All full keys that a call returns."""
        first = self.evaluators[0]
        own = [name for part in self.evaluators for name in part.metric_names()]
        return (*own, *(self._mean_key(_own(key, first.name)) for key in first.metric_names()))

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Evaluate each set, and average."""
        return self.joined([part(encode) for part in self.evaluators])

    def joined(self, found: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The metrics of each set, and their means."""
        every: dict[str, float] = {}
        by_key: dict[str, list[float]] = {}
        for part, metrics in zip(self.evaluators, found, strict=True):
            every |= metrics
            for key, value in metrics.items():
                by_key.setdefault(_own(key, part.name), []).append(value)
        means = {self._mean_key(key): float(np.mean(values)) for key, values in by_key.items()}
        return every | means

    def evaluated_rows(self) -> EvaluationRows:
        """Queries of all sets, some of the first."""
        rows = [part.evaluated_rows() for part in self.evaluators]
        datas = [part.data for part in self.evaluators]
        contents = (
            f"queries of {len(rows)} sets ({', '.join(part.name for part in self.evaluators)}), "
            f"{sum(len(data.corpus) for data in datas):,} documents, "
            f"{sum(len(data.relevant) for data in datas):,} relevant pairs"
        )
        notes = [
            f"{part.name}: {note}"
            for part, each in zip(self.evaluators, rows)
            for note in each.notes
        ]
        return EvaluationRows(
            sum(each.size for each in rows), contents, rows[0].columns, tuple(notes)
        )

    def _mean_key(self, key: str) -> str:
        return prefix_key(prefix_key(self.name, MEAN), key)


def is_collection(path: object) -> bool:
    """Whether `path` names several retrieval sets: a folder of their folders, or NanoBEIR."""
    if isinstance(path, Mapping):
        hub = path.get("hub")
        if hub is not None:
            return "sets" in path or hub_name(str(hub).rpartition("/")[2]) is not None
        return not set(path) & set(RETRIEVAL_PARTS) and is_collection(path.get("path"))
    if not isinstance(path, str | Path):
        return False
    if hub_name(str(path)) is not None and not Path(path).exists():
        return True
    return not has_corpus(Path(path)) and bool(_folders(Path(path)))


def set_folders(path: object, *, field: str) -> list[Path]:
    """The folders of a collection, chosen and in their order; none of one on the hub.

    Raises:
        ConfigError: no folder has the name of a chosen set.
    """
    keys = dict(path) if isinstance(path, Mapping) else {"path": path}
    folder = keys.get("path")
    if folder is None or (hub_name(str(folder)) is not None and not Path(str(folder)).exists()):
        return []
    by_name = {each.name: each for each in _folders(Path(str(folder)))}
    chosen = _chosen(keys.get("sets"), field=field)
    for name in chosen or ():
        if name not in by_name:
            raise ConfigError(
                f"{field}.sets",
                f"is not a folder of a set in {folder}",
                suggest(name, list(by_name)),
                value=name,
            )
    return [by_name[name] for name in chosen or by_name]


def read_collection(
    path: Any, *, columns: Mapping[str, Any] | None, limit: int | None, name: str, field: str
) -> RetrievalSetsEvaluator:
    """The evaluator of a collection, for which `is_collection` holds.

    Args:
        path: a folder, NanoBEIR or NanoBEIR-LANGUAGE; or ``{path: FOLDER}`` with sets and OPTIONS, or ``{hub:
            NAME}`` with sets and limit.
        columns, limit: of each set, see `InformationRetrievalEvaluator`.
        name: prefix of the means.
        field: configuration key, for messages.

    Raises:
        ConfigError: an unknown key or set, or whatever is wrong with a set.
    """
    keys = dict(path) if isinstance(path, Mapping) else {"path": path}
    folders = set_folders(keys, field=field)
    known = ("path", "sets", *OPTIONS) if folders else (*_HUB_KEYS, "path")
    for key in keys:
        if key not in known:
            raise ConfigError(f"{field}.{key}", "is not a valid key", suggest(str(key), known))
    chosen = _chosen(keys.pop("sets", None), field=field)
    if folders:
        parts = [
            _of_folder(folder, keys, columns=columns, limit=limit, field=field)
            for folder in folders
        ]
        return RetrievalSetsEvaluator(parts, name=name)
    hub = str(keys.get("hub") or hub_name(str(keys["path"])))
    limit = check_limit(keys.get("limit", limit), field=field)
    parts = [
        InformationRetrievalEvaluator(
            read_hub_set(hub, split, columns=columns or {}, limit=limit, field=field), name=split
        )
        for split in sets_of(hub, chosen, field=field)
    ]
    return RetrievalSetsEvaluator(parts, name=name)


def _of_folder(
    folder: Path,
    keys: Mapping[str, Any],
    *,
    columns: Mapping[str, Any] | None,
    limit: int | None,
    field: str,
) -> InformationRetrievalEvaluator:
    options = {**keys, "path": str(folder)}
    spec = retrieval_spec(options, columns=columns or None, limit=limit, field=field)
    data = read_retrieval_data(spec, field=field)
    return InformationRetrievalEvaluator(data, graded=spec.graded, name=folder.name)


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(each for each in path.iterdir() if each.is_dir() and has_corpus(each))


def _chosen(value: Any, *, field: str) -> list[str] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names:  # OmegaConf has lists of its own
        raise ConfigError(f"{field}.sets", "is no list of sets", "name some", value=value)
    return [str(name) for name in names]


def _own(key: str, name: str) -> str:
    """A metric's key without the name of its set."""
    return key.removeprefix(f"{name}_")
