"""Cards of sentence-transformers before 3.0: what `fit` was called with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inbatch.migration import literals
from inbatch.migration.facts import Call, DatasetFacts, EvaluatorFacts, Facts

# Where someone has edited them, headings may have their colon inside of the bold, and blocks a language.
_BLOCK = r" *(?:with parameters:? *)?```\w* *(\{.*?\}) *```"
_LOADER = re.compile(rf"\*\*DataLoader:?\*\*:? *`([\w.]+)` of length (\d+)(?:{_BLOCK})?")
_LOSS = re.compile(rf"\*\*Loss:?\*\*:? *`([\w.]+)`(?:{_BLOCK})?")
_FIT = re.compile(rf"fit\(\)-Method:?\**:?{_BLOCK}")
SCHEDULERS = {
    "constantlr": "constant",
    "warmupconstant": "constant_with_warmup",
    "warmuplinear": "linear",
    "warmupcosine": "cosine",
    "warmupcosinewithhardrestarts": "cosine_with_restarts",
}


def read_fit(facts: Facts, text: str) -> None:
    """Add loaders, losses and the arguments of `fit` to what a card tells; nothing where it has none."""
    loaders, losses = [*_LOADER.finditer(text)], [*_LOSS.finditer(text)]
    if not losses:
        return
    sizes: set[int] = set()
    for place, match in enumerate(losses):
        options = literals.mapping(match[2]) if match[2] else {}
        rows = None
        if place < len(loaders):
            rows = _rows(facts, loaders[place], sizes)
        loss = Call(match[1].rpartition(".")[2], (), options)
        facts.train = [*facts.train, DatasetFacts(size=rows, loss=loss)]
    if len(sizes) > 1:
        facts.notes.append(f"batches of several sizes ({', '.join(map(str, sorted(sizes)))})")
    if len(losses) > 1:
        facts.arguments["multi_dataset_batch_sampler"] = "round_robin"
    fit = _FIT.search(text)
    if fit:
        given = literals.mapping(fit[1])
        facts.arguments |= arguments_of_fit(given)
        evaluator = str(given.get("evaluator") or "").rpartition(".")[2]
        if evaluator.endswith("Evaluator") and evaluator != "SequentialEvaluator":
            facts.evaluators = [*facts.evaluators, EvaluatorFacts(evaluator)]


def _rows(facts: Facts, match: re.Match[str], sizes: set[int]) -> int | None:
    options = literals.mapping(match[3]) if match[3] else {}
    batch = options.get("batch_size")
    if "NoDuplicates" in match[1]:
        facts.arguments["batch_sampler"] = "no_duplicates"
    if not isinstance(batch, int):
        return None
    sizes.add(batch)
    facts.arguments["per_device_train_batch_size"] = batch
    return int(match[2]) * batch


def arguments_of_fit(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `SentenceTransformer.fit` as those of the trainer that replaced it."""
    optimizer = given.get("optimizer_params") or {}
    scheduler = str(given.get("scheduler", "WarmupLinear"))
    kind = (
        str(given.get("optimizer_class", "AdamW"))
        .strip("<>'\" ")
        .rpartition(".")[2]
        .strip("'\"")
        .lower()
    )
    found: dict[str, Any] = {
        "num_train_epochs": given.get("epochs", 1),
        "learning_rate": optimizer.get("lr", 2e-5) if isinstance(optimizer, Mapping) else 2e-5,
        "weight_decay": given.get("weight_decay", 0.01),
        "max_grad_norm": given.get("max_grad_norm", 1.0),
        "lr_scheduler_type": SCHEDULERS.get(scheduler.lower(), scheduler),
        "optim": {"adamw": "adamw_torch"}.get(kind, kind),
        "fp16": bool(given.get("use_amp", False)),
    }
    if isinstance(optimizer, Mapping):
        for name in ("eps", "betas"):
            if name in optimizer:
                found[f"optimizer.{name}"] = optimizer[name]
    warmup = given.get("warmup_steps", 10000)
    if found["lr_scheduler_type"] != "constant":
        found["warmup_steps"] = warmup
    evaluated = given.get("evaluation_steps") or 0
    if given.get("evaluator") not in (None, "NoneType"):
        found["eval_strategy"] = "steps" if evaluated else "epoch"
        if evaluated:
            found["eval_steps"] = evaluated
    if given.get("steps_per_epoch"):
        found["steps_per_epoch"] = given["steps_per_epoch"]
    return found
