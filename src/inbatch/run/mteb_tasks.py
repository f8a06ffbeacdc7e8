"""Tasks of the package mteb, run on a saved model.

mteb has the data, the splits and the metrics of a task; texts are embedded as for every other evaluation, so
over all ranks. Each rank runs the task, since embedding is collective, and all get the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inbatch.config.judging import MtebConfig
from inbatch.config.targets import locate
from inbatch.data.sources.files import LOAD_ERRORS
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.evaluation.base import Encode
from inbatch.evaluation.metrics import pairwise_similarity, similarities
from inbatch.evaluation.parts import MEAN
from inbatch.files import write_json

PREFIX = "mteb"
FOLDER = "mteb"  # of the results as mteb writes them


def load_tasks(config: MtebConfig) -> list[Any]:
    """The tasks of a configuration with their data; none where it names none.

    Args:
        config: names that mteb knows, or dotted names of task classes of one's own.

    Raises:
        ConfigError: mteb is not installed, a task is unknown, or its data cannot be had.
    """
    if not config.tasks:
        return []
    mteb = _package()
    tasks = []
    for name in config.tasks:
        if "." in name:
            tasks.append(locate(name, "mteb.tasks")())
            continue
        try:
            tasks += mteb.get_tasks(tasks=[name], languages=config.languages or None)
        except (KeyError, ValueError) as error:
            reason = str(error.args[0] if error.args else error).splitlines()[0].rstrip(".")
            raise ConfigError(
                "mteb.tasks", f"is not known ({reason})", "correct it", value=name
            ) from error
    for task in tasks:
        try:
            task.load_data()
        except (*LOAD_ERRORS, ConnectionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(
                "mteb.tasks",
                f"has data that cannot be loaded ({reason})",
                "check the connection, or fill the hub's cache elsewhere",
                value=task.metadata.name,
            ) from error
    return tasks


def run_tasks(
    tasks: Sequence[Any], encode: Encode, encoder: Encoder, *, model: str, folder: Path | None
) -> dict[str, float]:
    """The main score of each task, ``mteb_{task}``, and ``mteb_mean`` of several.

    Args:
        tasks: of `load_tasks`.
        encode: embeds texts on all ranks.
        encoder: its prompts and similarity.
        model: what the results call it.
        folder: where the results go as mteb writes them, ``mteb/{task}.json`` below it; None for nowhere.
    """
    if not tasks:
        return {}
    mteb = _package()
    found = mteb.evaluate(
        MtebModel(encode, encoder, model=model),
        tasks,
        co2_tracker=False,
        cache=None,
        show_progress_bar=False,
    )
    metrics = {}
    for result in found.task_results:
        metrics[f"{PREFIX}_{result.task_name}"] = float(result.get_score())
        if folder is not None:
            content = result.model_dump(mode="json")
            write_json(folder / FOLDER / f"{result.task_name}.json", content)
    if len(metrics) > 1:
        metrics[f"{PREFIX}_{MEAN}"] = sum(metrics.values()) / len(metrics)
    return metrics


class MtebModel:
    """An encoder as mteb calls one (its `EncoderProtocol`).

    The prompt is the first that the encoder has of those named ``{task}-query`` (or ``-document``),
    ``{task}``, ``{kind of task}-query``, ``{kind of task}``, and else that of the role.
    """

    def __init__(self, encode: Encode, encoder: Encoder, *, model: str) -> None:
        self._encode, self._encoder = encode, encoder
        meta = _package().models.ModelMeta
        known = {"name": f"{PREFIX}/{Path(model).name}", "revision": "local"}
        self.mteb_model_meta = meta.create_empty(known)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        prompt_type: Any = None,
        **_: Any,
    ) -> Any:
        """Embeddings of batches of texts, float32 [N, D]."""
        texts = [text for batch in inputs for text in batch["text"]]
        role = None if prompt_type is None else str(prompt_type.value)
        names = [
            f"{base}-{role}" if role and with_role else base
            for base in (task_metadata.name, task_metadata.type)
            for with_role in (True, False)
        ]
        prompt = next((self._encoder.prompts[n] for n in names if n in self._encoder.prompts), None)
        return self._encode(texts, role=role, prompt=prompt).numpy()

    def similarity(self, first: Any, second: Any) -> Tensor:
        """Similarity of each with each: [N, M]."""
        return similarities(_tensor(first), _tensor(second), self._encoder.similarity)

    def similarity_pairwise(self, first: Any, second: Any) -> Tensor:
        """Similarity of each pair: [N]."""
        return pairwise_similarity(_tensor(first), _tensor(second), self._encoder.similarity)


def _tensor(embeddings: Any) -> Tensor:
    return torch.as_tensor(embeddings, dtype=torch.float32)


def _package() -> Any:
    try:
        import mteb  # seconds of a start, and an extra
    except ImportError as error:
        raise ConfigError(
            "mteb.tasks", "needs the package mteb", "run pip install 'inbatch[mteb]'"
        ) from error
    return mteb
