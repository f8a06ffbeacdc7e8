"""`inbatch.train`: a training run as a function call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

from inbatch.api.compose import compose_run, describe, with_places
from inbatch.api.devices import one_device
from inbatch.api.rows import by_name, file_spec, make_evaluator, placeholder, to_table
from inbatch.cluster.interrupt import interruptible
from inbatch.data.plan.plan import Sampler
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator
from inbatch.losses.base import Loss
from inbatch.run.parts import OwnObjects
from inbatch.run.quiet import quiet
from inbatch.run.results import TrainResult
from inbatch.run.train import train as run_train

_HAS = {"loss": "scope", "sampler": "plan"}  # an attribute of each of these
_FIXES = {
    "encoder": "pass a name, a directory, or an inbatch.Encoder, as inbatch.load_encoder returns",
    "loss": "pass the name of a file in conf/loss, or an object like those of inbatch.losses",
    "sampler": "pass the name of a file in conf/sampler, or an object like those of inbatch.samplers",
}


@quiet()
def train(
    train: Any,
    eval: Any = None,
    *,
    encoder: str | Path | Encoder | Mapping[str, Any] | None = None,
    loss: str | Loss | Mapping[str, Any] | None = None,
    sampler: str | Sampler | Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> TrainResult:
    """Train a bi-encoder, with the same settings, defaults and checks as ``inbatch train``.

    >>> import inbatch
    >>> rows = [{"query": f"red shoe {n}", "positive": f"shoe {n} in red"} for n in range(64)]
    >>> result = inbatch.train(
    ...     rows,
    ...     eval=rows[:16],
    ...     encoder="tiny",
    ...     loss="multiple_negatives_ranking",
    ...     global_batch_size=16,
    ...     optimizer={"lr": 1e-3},
    ...     output_dir="shoes",
    ... )
    >>> "eval_cosine_ndcg@10" in result.metrics
    True
    >>> encoder = inbatch.load_encoder(result.model)
    >>> encoder.encode(["red shoe 1", "shoe 1 in red"]).shape
    torch.Size([2, 128])

    Args:
        train: what to train on: a file, a glob or a list of files; a `datasets.Dataset`, a pandas DataFrame
            or a list of dicts; ``{name: any of these}`` for several sources. Columns are recognised by
            their names (query, positive, negative, label, ...), or named in `columns`.
        eval: what to evaluate on: the same kinds of data, an evaluator, a list of evaluators, or any of
            these by name. The first evaluator's primary metric chooses the saved model.
        encoder: the name of a file in conf/encoder, a directory or hub name of a model, or an `Encoder`,
            which is trained in place.
        loss: the name of a file in conf/loss, a loss, or losses by source name. Your own loss is a
            dataclass like those of `inbatch.losses`.
        sampler: the name of a file in conf/sampler, or a sampler.
        columns: ``{query, positive, negatives, label, key}`` -> names of columns, for all data.
        output_dir: everything is written here. A second call with the same settings resumes the run.
        settings: every other key of the configuration: names of groups (``strategy="ddp"``,
            ``experiment="demo"``), dicts (``optimizer={"lr": 1e-4}``), or dotted keys
            (``**{"trainer.max_epochs": 3}``).

    Raises:
        ConfigError: a mistake in the settings or in the data, as one sentence.
        KeyboardInterrupt: of a Ctrl-C; what is trained is saved, and the same call goes on from there.
    """
    names = with_places(settings, columns=columns, output_dir=output_dir)
    own_encoder = _own("encoder", encoder, names)
    own_loss = _own("loss", loss, names)
    own_sampler = _own("sampler", sampler, names)
    tables = _add_sources(names, train)
    evaluators = _add_evaluators(names, eval, columns=columns or {})
    own = OwnObjects(
        tables=tables,
        evaluators=evaluators,
        encoder=own_encoder,
        loss=own_loss,
        sampler=own_sampler,
    )
    if own.encoder is not None:
        names |= {"encoder": "pretrained", "encoder.model": own.encoder.base_model or "(an object)"}
    run = compose_run(names)
    run = replace(
        run,
        trainer=one_device(run.trainer, command="train"),
        # The configuration describes the objects that stand in for its parts.
        loss=run.loss if own.loss is None else _describe(own.loss),
        sampler=run.sampler if own.sampler is None else _describe(own.sampler),
    )
    with interruptible() as stop:
        return run_train(run, stop, own=own)


def _own(key: str, value: Any, names: dict[str, Any]) -> Any:
    """The caller's object, or None after adding a name or a dict of settings to `names`.

    Args:
        key: the argument.
        value: its value.
        names: settings of the run.

    Raises:
        ConfigError: it is an object of another kind.
    """
    objects = list(value.values()) if isinstance(value, Mapping) else [value]
    if value is None or isinstance(value, str | Path):
        names |= {} if value is None else {key: str(value)}
        return None
    if isinstance(value, Mapping) and not (objects and all(map(callable, objects))):
        names[key] = value
        return None
    for each in objects:
        if not (isinstance(each, Encoder) if key == "encoder" else hasattr(each, _HAS[key])):
            kind = f"{type(each).__module__}.{type(each).__qualname__}"
            raise ConfigError(
                key, f"is a {kind}, which inbatch cannot use as its {key}", _FIXES[key]
            )
    return value


def _add_sources(names: dict[str, Any], train: Any) -> dict[str, datasets.Dataset]:
    """Add `data.train`; the rows that are in memory, by source name."""
    tables, specs = {}, {}
    for name, value in by_name(train, "train").items():
        key = "train" if name == "train" else f"train.{name}"
        table = to_table(value, key=key)
        specs[name] = {"path": placeholder(table)} if table is not None else file_spec(value)
        if table is not None:
            tables[name] = table
    for name, further in _further_keys(names, specs).items():
        specs[name] = {**_as_keys(specs[name]), **further}
    names["data.train"] = specs
    return tables


def _further_keys(names: dict[str, Any], specs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Take the keys of sources, by name, out of ``data={"train": {...}}``.

    Raises:
        ConfigError: they are those of a source that the argument `train` does not have.
    """
    data = names.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("train"), Mapping):
        return {}
    names["data"] = {key: value for key, value in data.items() if key != "train"}
    given = data["train"]
    by_source = (
        all(isinstance(value, Mapping) for value in given.values()) and given.keys() <= specs.keys()
    )
    found = given if by_source else {name: given for name in specs if len(specs) == 1}
    if given and not found:
        raise ConfigError(
            "data.train",
            "does not say of which source its keys are",
            f"name one of {', '.join(specs)}",
        )
    return dict(found)


def _as_keys(spec: Any) -> dict[str, Any]:
    return dict(spec) if isinstance(spec, Mapping) else {"path": spec}


def _add_evaluators(
    names: dict[str, Any], eval: Any, *, columns: Mapping[str, Any]
) -> dict[str, Evaluator]:
    """Add `data.eval`, and evaluators that are objects or whose rows are in memory; those by name."""
    if eval is None:
        return {}
    if isinstance(eval, Sequence) and len(eval) and all(hasattr(e, "primary_metric") for e in eval):
        eval = {evaluator.name or f"eval{n}": evaluator for n, evaluator in enumerate(eval)}
    made, files = {}, {}
    for name, value in by_name(eval, "eval").items():
        key = "eval" if name == "eval" else f"eval.{name}"
        evaluator = make_evaluator(name, value, columns=columns, key=key)
        if evaluator is None:
            files[name] = file_spec(value)
        else:
            made[name] = evaluator
    if files:
        names["data.eval"] = files
    if made:
        target = {"_target_": "inbatch.evaluation.evaluator_for", "path": placeholder(None)}
        names["evaluation.evaluators"] = {name: {**target, "name": name} for name in made}
    return made


def _describe(value: Any) -> Any:
    """What the configuration says of a loss, losses by source name, or a sampler."""
    if isinstance(value, Mapping):
        return {name: describe(each) for name, each in value.items()}
    return describe(value)
