"""Training scripts: constants that are read off the syntax tree. Nothing of a script is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inbatch.errors import ConfigError
from inbatch.migration.facts import Call, DatasetFacts, Epochs, EvaluatorFacts, Facts, Unknown
from inbatch.migration.old_card import arguments_of_fit
from inbatch.migration.values import Values

_ARGUMENTS = ("SentenceTransformerTrainingArguments", "TrainingArguments", "BaseTrainingArguments")
_TRAINERS = ("SentenceTransformerTrainer", "Trainer")
_FIT = (
    *("train_objectives", "evaluator", "epochs", "steps_per_epoch", "scheduler", "warmup_steps"),
    *("optimizer_class", "optimizer_params", "weight_decay", "evaluation_steps"),
)


def read_script(text: str, path: Path) -> Facts:
    """What calls of sentence-transformers in a script were made with.

    Raises:
        ConfigError: It is no Python, or trains nothing.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        raise ConfigError(
            str(path), f"is no Python{line}", "name a script, a card or a directory"
        ) from None
    values = Values(tree)
    facts = Facts()
    found = [*_calls(tree, values)]
    models = [made for made in found if made.name == "SentenceTransformer"]
    trainer = next((made for made in found if made.name in _TRAINERS), None)
    fit = next((made for made in found if made.name == "fit"), None)
    given = next((made for made in found if made.name in _ARGUMENTS), None)
    if trainer is None and fit is None and given is None:
        raise ConfigError(
            str(path),
            "trains nothing",
            "name a script with SentenceTransformerTrainer or model.fit",
        )
    if given is not None:
        facts.arguments = {key: _argument(value) for key, value in given.options.items()}
    if trainer is not None:
        _read_trainer(facts, trainer)
    elif fit is not None:
        _read_fit(facts, fit)
    _set_share(facts.arguments)
    _read_model(facts, _trained(models, trainer), values)
    lora = next((made for made in found if made.name == "LoraConfig"), None)
    if lora is not None:
        facts.adapter = dict(lora.options)
    if not facts.evaluators:
        facts.evaluators = [
            _evaluator(m)
            for m in found
            if m.name.endswith("Evaluator") and m.name != "SequentialEvaluator"
        ]
    return facts


def _calls(tree: ast.AST, values: Values) -> Iterator[Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found = values.of(node)
            if isinstance(found, Call):
                yield found


def _trained(models: list[Call], trainer: Call | None) -> Call | None:
    """The model that the trainer was given; the first that is made where it was given none."""
    given = trainer.get("model", 0) if trainer else None
    if isinstance(given, Call) and given.name == "SentenceTransformer":
        return given
    return models[0] if models else None


def _set_share(arguments: dict[str, Any]) -> None:
    """Warmup steps as a share of the run, where they are a multiple of a loader's length."""
    steps, epochs = arguments.get("warmup_steps"), arguments.get("num_train_epochs", 3)
    if isinstance(steps, Epochs):
        del arguments["warmup_steps"]
        if isinstance(epochs, int | float) and epochs:
            arguments["warmup_ratio"] = round(steps.number / epochs, 6)


def _argument(value: Any) -> Any:
    return Unknown(f"{value.name}(...)") if isinstance(value, Call) else value


def _read_trainer(facts: Facts, trainer: Call) -> None:
    losses, train = trainer.get("loss"), trainer.get("train_dataset")
    sets: Mapping[str, Any] = train if isinstance(train, Mapping) else {"": train}
    for name, rows in sets.items():
        loss = losses.get(name) if isinstance(losses, Mapping) else losses
        facts.train = [*facts.train, _dataset(name, rows, loss)]
    found = trainer.get("evaluator")
    for made in found if isinstance(found, list | tuple) else [found]:
        facts.evaluators = [*facts.evaluators, *_evaluators(made)]
    held = trainer.get("eval_dataset")
    if isinstance(held, Call):
        facts.eval = [_dataset("", held, None)]


def _evaluators(made: Any) -> Iterator[EvaluatorFacts]:
    if not isinstance(made, Call):
        return
    if made.name == "SequentialEvaluator":
        parts = made.get("evaluators", 0)
        for part in parts if isinstance(parts, list | tuple) else []:
            yield from _evaluators(part)
    elif made.name.endswith("Evaluator"):
        yield _evaluator(made)


def _evaluator(made: Call) -> EvaluatorFacts:
    name = made.get("name")
    options = {k: made.options[k] for k in ("truncate_dim", "at_k") if k in made.options}
    return EvaluatorFacts(made.name, (name if isinstance(name, str) else "",), options)


def _dataset(name: str, rows: Any, loss: Any) -> DatasetFacts:
    made = rows if isinstance(rows, Call) and rows.name == "load_dataset" else None
    hub = made.get("path", 0) if made else None
    if hub in ("csv", "json", "parquet", "text", "arrow"):
        hub = None
    subset, split = (made.get("name", 1), made.get("split")) if made else (None, None)
    return DatasetFacts(
        name=name or (hub.rpartition("/")[2] if isinstance(hub, str) else ""),
        hub=hub if isinstance(hub, str) else None,
        subset=subset if isinstance(subset, str) else None,
        split=split if isinstance(split, str) else None,
        loss=loss if isinstance(loss, Call) else None,
    )


def _read_fit(facts: Facts, fit: Call) -> None:
    given = {name: fit.get(name, place) for place, name in enumerate(_FIT)}
    given |= fit.options
    objectives = given.pop("train_objectives", None)
    evaluator = given.get("evaluator")
    facts.evaluators = [*_evaluators(evaluator)]
    known = {k: v for k, v in given.items() if v is not None and k != "evaluator"}
    facts.arguments = arguments_of_fit(
        {
            "warmup_steps": 10000,
            "evaluator": evaluator,
            **{k: _argument(v) for k, v in known.items()},
        }
    )
    for pair in objectives if isinstance(objectives, list | tuple) else []:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        loader, loss = pair
        facts.train = [*facts.train, DatasetFacts(loss=loss if isinstance(loss, Call) else None)]
        if isinstance(loader, Call):
            facts.arguments["per_device_train_batch_size"] = loader.get("batch_size", 1) or 8
            if loader.name == "NoDuplicatesDataLoader":
                facts.arguments["batch_sampler"] = "no_duplicates"
    if len(facts.train) > 1:
        facts.arguments["multi_dataset_batch_sampler"] = "round_robin"


def _read_model(facts: Facts, model: Call | None, values: Values) -> None:
    if model is None:
        facts.notes.append("model: no SentenceTransformer(...) in the script")
        return
    name = model.get("model_name_or_path", 0)
    modules = model.get("modules", 1)
    if isinstance(name, str):
        facts.base_model = name
    elif isinstance(name, Unknown):
        facts.notes.append(f"model: {name.text} is only known where the script runs")
    if isinstance(modules, list | tuple):
        made = [module for module in modules if isinstance(module, Call)]
        facts.modules = made
        first = made[0] if made else None
        if first is not None and first.name == "Transformer":
            base = first.get("model_name_or_path", 0)
            facts.base_model = base if isinstance(base, str) else facts.base_model
            length = first.get("max_seq_length", 1)
            facts.max_length = length if isinstance(length, int) else None
    revision, prompts = model.get("revision"), model.get("prompts")
    facts.base_revision = revision if isinstance(revision, str) else None
    facts.prompts = prompts if isinstance(prompts, Mapping) else {}
    similarity = model.get("similarity_fn_name")
    facts.similarity = (
        str(similarity).rpartition(".")[2].lower()
        if isinstance(similarity, str | Unknown)
        else None
    )
    for length in values.attributes("max_seq_length"):
        if isinstance(length, int):
            facts.max_length = length
