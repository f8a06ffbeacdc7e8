"""The entry point of evaluation: a saved model and files -> a table and a JSON file of metrics.

Each option that names a file becomes one evaluator of `inbatch.evaluation`; the metrics have the
same keys as during training. A user's mistake ends in one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers.utils import logging

from inbatch.console import run_table
from inbatch.encoder import Encoder, build_encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    Encode,
    Evaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)

_KINDS: dict[str, Callable[..., Evaluator]] = {
    "similarity": EmbeddingSimilarityEvaluator,
    "triplets": TripletEvaluator,
    "binary": BinaryClassificationEvaluator,
    "retrieval": InformationRetrievalEvaluator,
}
_TAKES_ROLE = ("similarity", "binary")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        metrics = evaluate(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    run_table(
        {name: {k: f"{v:.4f}" for k, v in values.items()} for name, values in metrics.items()}
    )
    return 0


def evaluate(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Metrics by the name of the evaluation; written to `options.output` if that is set.

    Raises:
        ConfigError: a model, file or option that cannot be used.
    """
    output = _prepare(options.output)
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    evaluators = _evaluators(options)
    encode = _encode(options)
    metrics = {name: evaluator(encode) for name, evaluator in evaluators.items()}
    if output is not None:
        known = {
            name: {key: None if math.isnan(value) else value for key, value in values.items()}
            for name, values in metrics.items()
        }
        output.write_text(json.dumps({"model": options.model, "metrics": known}, indent=2) + "\n")
    return metrics


def _evaluators(options: argparse.Namespace) -> dict[str, Evaluator]:
    shared = {
        "columns": _columns(options.columns),
        "limit": options.limit,
        "similarity": options.similarity_functions.split(","),
        "truncate_dim": options.truncate_dim,
    }
    evaluators: dict[str, Evaluator] = {}
    for kind, evaluator in _KINDS.items():
        for value in getattr(options, kind):
            name, path = _name_and_path(value, kind)
            if name in evaluators:
                raise ConfigError(
                    f"--{kind} {value}: '{name}' is taken; write --{kind} NAME={path}."
                )
            role = {"role": options.role} if kind in _TAKES_ROLE else {}
            evaluators[name] = evaluator(path, **shared, **role)
    if not evaluators:
        flags = ", ".join(f"--{kind}" for kind in _KINDS)
        raise ConfigError(f"nothing to evaluate on; give a file with one of {flags}.")
    return evaluators


def _encode(options: argparse.Namespace) -> Encode:
    encoder: Encoder = build_encoder(
        options.model,
        max_length=options.max_length,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
    )
    encoder.prompts.update(_pairs(options.prompt, flag="--prompt"))
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        encoder.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"--device {device} cannot be used ({reason}); choose cpu or cuda."
        ) from error

    def encode(texts: Sequence[str], *, role: str | None) -> torch.Tensor:
        return encoder.encode(texts, role=role, chunk_tokens=options.chunk_tokens)

    return encode


def _name_and_path(value: str, kind: str) -> tuple[str, str]:
    match = re.fullmatch(r"([\w.-]+)=(.+)", value)
    if match is None or Path(value).exists():
        return kind, value
    return match[1], match[2]


def _columns(items: Iterable[str]) -> Mapping[str, Any] | None:
    columns: dict[str, Any] = dict(_pairs(items, flag="--columns"))
    if "negatives" in columns:
        columns["negatives"] = columns["negatives"].split(",")
    return columns or None


def _pairs(items: Iterable[str], *, flag: str) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise ConfigError(f"{flag} {item!r} is not of the form KEY=VALUE; write it so.")
        pairs[key] = value
    return pairs


def _prepare(path: str | None) -> Path | None:
    if path is None:
        return None
    output = Path(path)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
    except OSError as error:
        raise ConfigError(f"--output {path} cannot be written ({error.strerror}).") from error
    return output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Evaluate a saved bi-encoder. A FILE may be NAME=FILE; all may be repeated.",
    )
    add = parser.add_argument
    add("model", help="directory, hub name or pkg://package/directory")
    files: dict[str, Any] = {"action": "append", "default": []}
    add("--similarity", metavar="FILE", **files, help="pairs with graded labels: correlations")
    add("--triplets", metavar="FILE", **files, help="query, positive, negative: accuracy")
    add(
        "--binary",
        metavar="FILE",
        **files,
        help="pairs labelled 0 or 1: average precision, F1, ...",
    )
    add(
        "--retrieval",
        metavar="DIR",
        **files,
        help="folder with corpus, queries and qrels files, or a file of pairs: nDCG, recall, ...",
    )
    add(
        "--columns",
        metavar="ROLE=COLUMN",
        nargs="+",
        default=[],
        help="of all files, such as query=title positive=body negatives=a,b label=score",
    )
    add("--limit", type=int, metavar="N", help="the first rows (retrieval: queries) only")
    add(
        "--similarity-functions",
        metavar="NAMES",
        default="cosine",
        help="several of cosine,dot,manhattan,euclidean (default: %(default)s)",
    )
    add("--role", help="prompt of --similarity and --binary: query, document or another name")
    add(
        "--prompt",
        metavar="NAME=TEXT",
        nargs="+",
        default=[],
        help="replace prompts of the model, such as 'query=query: ' 'document=passage: '",
    )
    add("--max-length", type=int, metavar="TOKENS", help="default: the model's own")
    add("--truncate-dim", type=int, metavar="D", help="keep the first D dimensions")
    add("--dtype", default="float32", help="of the weights (default: %(default)s)")
    add("--chunk-tokens", type=int, default=8192, help="of one forward (default: %(default)s)")
    add("--device", help="cpu or cuda (default: cuda if there is one)")
    add("--trust-remote-code", action="store_true", help="run Python code that the model brings")
    add("--output", metavar="FILE", help="JSON file for the metrics")
    return parser
