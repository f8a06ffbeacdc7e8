"""Arguments of a training as settings: batches, length, optimizer, schedule, precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from inbatch.migration.arguments import COUNTS, NOT_APPLICABLE, TAKEN, USUAL
from inbatch.migration.draft import Draft, number, word
from inbatch.migration.facts import Facts, Unknown
from inbatch.migration.run_arguments import set_run

# What an argument is where a source that lists arguments does not list it.
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_train_epochs": 3,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "optim": "adamw_torch",
    "batch_sampler": "batch_sampler",
}
# Without these a run is not that of the source.
_TOLD = {
    "per_device_train_batch_size": "global_batch_size",
    "num_train_epochs": "trainer.max_epochs",
    "learning_rate": "optimizer.lr",
}
_ADAMW = {
    *("adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused"),
    *("adamw_torch_xla", "adamw_torch_npu_fused"),
}
_OPTIMIZERS = {"adafactor", "adagrad", "rmsprop", "sgd", "adam"}
_SCHEDULES = {
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"),
    *("inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay"),
}
_WITH_WARMUP = {
    "constant_with_warmup",
    "inverse_sqrt",
    "warmup_stable_decay",
}  # whose file sets one


def set_training(draft: Draft, facts: Facts) -> None:
    """Set what the arguments say; nothing where a source has none."""
    given = facts.arguments
    if not given:
        draft.note("hyperparameters: none are told, so those of inbatch hold")
        return
    for name, value in given.items():
        if isinstance(value, Unknown) and name in TAKEN:
            draft.note(f"{name}: {value.text} is only known where the script runs")
    unknown = {name for name, value in given.items() if isinstance(value, Unknown)}
    arguments = DEFAULTS | {name: value for name, value in given.items() if name not in unknown}
    for name, key in _TOLD.items():
        if name in unknown:
            draft.needs[key] = f"{name} of the script"
    _batches(draft, arguments)
    _length(draft, arguments, facts)
    _optimizer(draft, arguments)
    _schedule(draft, arguments)
    _precision(draft, arguments)
    set_run(draft, arguments)
    _leftover(draft, facts)


def _batches(draft: Draft, arguments: Mapping[str, Any]) -> None:
    size = arguments["per_device_train_batch_size"]
    if "per_gpu_train_batch_size" in arguments and number(arguments["per_gpu_train_batch_size"]):
        size = arguments["per_gpu_train_batch_size"]
    draft.set(
        "global_batch_size",
        number(size) or 8,
        "rows of one device there; times the devices if there were several",
    )
    accumulate = number(arguments.get("gradient_accumulation_steps"))
    if accumulate and accumulate > 1:
        draft.set("accumulate", int(accumulate))


def _length(draft: Draft, arguments: Mapping[str, Any], facts: Facts) -> None:
    steps, epochs = number(arguments.get("max_steps")), arguments["num_train_epochs"]
    if steps and steps > 0:
        draft.set("trainer.max_epochs", -1)
        draft.set("trainer.max_steps", int(steps))
        return
    length = number(epochs) or 0
    draft.set("trainer.max_epochs", max(1, math.ceil(length)))
    if length != math.ceil(length):
        _part_of_an_epoch(draft, length, arguments, facts)
    if arguments.get("steps_per_epoch"):
        draft.note(f"steps_per_epoch={arguments['steps_per_epoch']}: an epoch is all rows here")


def _part_of_an_epoch(
    draft: Draft, epochs: float, arguments: Mapping[str, Any], facts: Facts
) -> None:
    sizes = [source.size for source in facts.train]
    batch = number(arguments["per_device_train_batch_size"]) or 8
    if not sizes or None in sizes:
        draft.note(
            f"num_train_epochs={epochs}: whole epochs only, set trainer.max_steps to end earlier"
        )
        return
    batches = sum(math.ceil((size or 0) / batch) for size in sizes)
    each = max(1, batches // int(number(arguments.get("gradient_accumulation_steps")) or 1))
    draft.set("trainer.max_steps", math.ceil(epochs * each), f"{epochs} epochs on one device")


def _optimizer(draft: Draft, arguments: Mapping[str, Any]) -> None:
    name = "adafactor" if arguments.get("adafactor") is True else word(arguments["optim"])
    if name in _ADAMW:
        name = "adamw"
    elif name not in _OPTIMIZERS:
        draft.note(f"optim={name}: not offered; optimizer=adamw takes its place")
        name = "adamw"
    if name != "adamw":
        draft.choose("optimizer", name)
    draft.set("optimizer.lr", number(arguments["learning_rate"]))
    decay = number(arguments.get("weight_decay"))
    if decay:
        draft.set("optimizer.weight_decay", decay)
    if name in ("adamw", "adam"):
        betas = [
            number(arguments.get(f"adam_beta{k}", usual)) for k, usual in ((1, 0.9), (2, 0.999))
        ]
        betas = [*(arguments.get("optimizer.betas") or betas)]
        if betas != [0.9, 0.999]:
            draft.set("optimizer.betas", betas)
        eps = number(arguments.get("optimizer.eps", arguments.get("adam_epsilon", 1e-8)))
        if eps != 1e-8:
            draft.set("optimizer.eps", eps)
    for key, value in _pairs(arguments.get("optim_args")):
        draft.set(f"optimizer.{key}", value)


def _pairs(text: Any) -> list[tuple[str, Any]]:
    """``"momentum=0.9,nesterov=True"``."""
    parts = [part.partition("=") for part in text.split(",")] if isinstance(text, str) else []
    values = {"true": True, "false": False, "none": None}
    return [
        (
            key.strip(),
            values.get(
                value.strip().lower(), number(value) if number(value) is not None else value
            ),
        )
        for key, mark, value in parts
        if mark
    ]


def _schedule(draft: Draft, arguments: Mapping[str, Any]) -> None:
    name = word(arguments["lr_scheduler_type"])
    if name not in _SCHEDULES:
        draft.note(f"lr_scheduler_type={name}: not offered; schedule=linear takes its place")
        name = "linear"
    if name != "linear":
        draft.choose("schedule", name)
    if name == "constant":
        return
    steps, ratio = (
        number(arguments.get("warmup_steps")) or 0,
        number(arguments.get("warmup_ratio")) or 0,
    )
    if 0 < steps < 1:  # a share, in the newest versions
        steps, ratio = 0, steps
    if steps:
        draft.set("schedule.warmup_steps", int(steps))
    if ratio and not steps:
        draft.set("schedule.warmup_ratio", ratio)
    elif name in _WITH_WARMUP:
        draft.set("schedule.warmup_ratio", 0.0)
    kwargs = arguments.get("lr_scheduler_kwargs")
    given = dict(kwargs) if isinstance(kwargs, Mapping) else {}
    _shape(draft, name, given, number(arguments["learning_rate"]) or 5e-5)


def _shape(draft: Draft, name: str, given: dict[str, Any], rate: float) -> None:
    if name == "polynomial":
        given["min_lr_ratio"] = (number(given.pop("lr_end", 1e-7)) or 0) / rate
    if name == "cosine_with_min_lr":
        lowest, share = given.pop("min_lr", None), given.pop("min_lr_rate", None)
        given["min_lr_ratio"] = share if lowest is None else (number(lowest) or 0) / rate
    if name == "warmup_stable_decay":
        given.pop("num_stable_steps", None)  # what is left of the run
        if "num_decay_steps" in given:
            given |= {"decay_steps": given.pop("num_decay_steps"), "decay_ratio": 0.0}
    known = {
        "cosine": {"num_cycles"},
        "cosine_with_restarts": {"num_cycles"},
        "polynomial": {"power", "min_lr_ratio"},
        "inverse_sqrt": {"timescale"},
        "cosine_with_min_lr": {"num_cycles", "min_lr_ratio"},
        "warmup_stable_decay": {
            *("decay_steps", "decay_ratio", "warmup_type", "decay_type", "min_lr_ratio"),
        },
    }.get(name, set())
    for key, value in given.items():
        if key in known:
            draft.set(f"schedule.{key}", value)
        else:
            draft.note(f"lr_scheduler_kwargs.{key}={value}: schedule={name} has no such key")


def _precision(draft: Draft, arguments: Mapping[str, Any]) -> None:
    chosen = next(
        (name for name in ("bf16", "fp16", "tf32") if arguments.get(name) is True), "fp32"
    )
    draft.set("precision", chosen)


def _leftover(draft: Draft, facts: Facts) -> None:
    """Tell for what there is no setting, where it was not left as it usually is."""
    for name, value in facts.arguments.items():
        if name in TAKEN or name.startswith("optimizer.") or isinstance(value, Unknown):
            continue
        usual = value in (None, "", False, [], {}) or value in USUAL.get(name, ())
        if usual if facts.non_default is None else name not in facts.non_default:
            continue
        shown = f"{name}={value}"
        if name in NOT_APPLICABLE and name not in COUNTS:
            draft.idle.append(shown)
        else:
            draft.note(f"{shown}: {NOT_APPLICABLE.get(name, 'not an argument that is known here')}")
