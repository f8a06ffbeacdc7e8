"""What `inbatch evaluate` and `inbatch compare` share: ranks, a model on each, sets to evaluate on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inbatch.callbacks.encode import Place, ShardedEncode
from inbatch.config.instantiate import instantiate
from inbatch.config.judging import CompareConfig, EvaluateConfig
from inbatch.device.capability import default_accelerator
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator
from inbatch.evaluation.base import follow_model
from inbatch.evaluation.encode_texts import usable_device
from inbatch.evaluation.parts import check_names
from inbatch.evaluation.views import View, check_views
from inbatch.folder.paths import RunFolder
from inbatch.strategies import find_world
from inbatch.strategies.fabric import launched
from inbatch.strategies.topology import find_launcher


def join_ranks(run: EvaluateConfig | CompareConfig) -> Place:
    """Start the ranks that the configuration asks for, or join a launcher's; returns on each of them.

    Raises:
        ConfigError: a device that there is not, or one of several ranks with an index; another number of
            ranks than the launcher has started.
    """
    if str(run.devices) in ("auto", "1") and run.num_nodes == 1 and find_launcher() is None:
        return Place(usable_device(default_accelerator() if run.device == "auto" else run.device))
    accelerator, _, index = run.device.partition(":")
    if index:
        raise ConfigError(
            "device",
            "has the index of one device, and each rank takes its own",
            f"set {accelerator}, or devices=1 without a launcher",
            value=run.device,
        )
    try:
        world = find_world(accelerator, run.devices, run.num_nodes, group="")
    except ConfigError as error:
        raise error.under("device") if error.key == "accelerator" else error from None
    fabric = launched(world)
    return Place(fabric.device, fabric.global_rank, fabric.world_size)


def make_evaluators(nodes: Mapping[str, Any]) -> list[Evaluator]:
    """The evaluators of a configuration, whose metrics have different names.

    Raises:
        ConfigError: files that cannot be read, or two sets of one name.
    """
    evaluators: list[Evaluator] = list(instantiate(nodes).values())
    check_names(evaluators)
    return evaluators


def ready_to_judge(
    node: Mapping[str, Any],
    evaluators: Iterable[Evaluator],
    views: Iterable[View],
    *,
    place: Place,
    chunk_tokens: int,
) -> tuple[Encoder, ShardedEncode]:
    """A model on this rank, and the function that evaluators embed texts with, after its similarity.

    Args:
        node: of the encoder.
        evaluators: those without a similarity of their own take the model's.
        views: forms of its embeddings, whose dimensions it must have.
        place: of this rank.
        chunk_tokens: computed tokens of one forward.

    Raises:
        ConfigError: a model or a device that cannot be used.
    """
    built: Encoder = instantiate(node, key="encoder")
    encoder = built.to(place.device)
    check_views(views, encoder.output_dimension)
    follow_model(evaluators, encoder.similarity)
    return encoder, ShardedEncode(place, encoder, chunk_tokens=chunk_tokens)


def model_of(path: str) -> str:
    """A model by its path: the exported one of a run's folder, or the path itself."""
    exported = RunFolder(Path(path)).model
    return str(exported) if exported.is_dir() else path
