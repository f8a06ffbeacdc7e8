"""`inbatch.evaluate` and `inbatch.load_encoder`: a saved model in a Python program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inbatch.api.rows import by_name, file_spec, make_evaluator
from inbatch.device.capability import default_accelerator
from inbatch.encoder import Encoder, build_encoder
from inbatch.evaluation import evaluator_for
from inbatch.evaluation.base import follow_model
from inbatch.evaluation.encode_texts import EncodeTexts, on_device
from inbatch.run.quiet import quiet


@quiet()
def load_encoder(
    model: str | Path, *, device: str | torch.device | None = None, **options: Any
) -> Encoder:
    """A saved model, ready to `encode` texts.

    Args:
        model: a sentence-transformers or transformers directory, such as ``result.model``, or a hub name.
        device: where to put it; None leaves it on the CPU.
        options: further arguments of `inbatch.encoder.build_encoder`, such as ``max_length=128``.

    Raises:
        ConfigError: the model cannot be loaded, or the device cannot be used.
    """
    return on_device(build_encoder(str(model), **options), device).eval()


@quiet()
def evaluate(
    model: str | Path | Encoder,
    data: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    chunk_tokens: int = 8192,
) -> dict[str, float]:
    """Metrics of a model.

    Args:
        model: an `Encoder`, or what `load_encoder` takes.
        data: what to evaluate on, as the `eval` of `inbatch.train`. What is measured follows from the
            columns: triplets, pairs with scores, pairs labelled 0 or 1, or pairs to retrieve.
        columns: ``{query, positive, negatives, label}`` -> names of columns.
        device: where to compute; None takes a GPU if there is one and `model` is not an `Encoder`.
        chunk_tokens: most computed tokens of one forward; a longer text goes alone.

    Returns:
        All metrics by name.

    Raises:
        ConfigError: a model, data or device that cannot be used.
    """
    if isinstance(data, Sequence) and len(data) and all(hasattr(e, "primary_metric") for e in data):
        data = {evaluator.name or f"eval{n}": evaluator for n, evaluator in enumerate(data)}
    evaluators = []
    for name, value in by_name(data, "eval").items():
        key = "data" if name == "eval" else f"data.{name}"
        made = make_evaluator(name, value, columns=columns or {}, key=key)
        if made is None:
            made = evaluator_for(file_spec(value), columns=columns, name=name)
        evaluators.append(made)
    if isinstance(model, Encoder):
        encoder = on_device(model, device)
    else:
        encoder = load_encoder(model, device=device or default_accelerator())
    follow_model(evaluators, encoder.similarity)
    encode = EncodeTexts(encoder, chunk_tokens)
    return {key: value for each in evaluators for key, value in each(encode).items()}
