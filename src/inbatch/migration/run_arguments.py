"""Arguments of a training that are one setting each: seeds, loaders, checkpoints, loggers, devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inbatch.migration.draft import Draft, number, word


def _flag(value: Any) -> bool | None:
    return True if value is True else None


def _mapping(value: Any) -> dict[str, Any] | None:
    return dict(value) if isinstance(value, Mapping) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _earlier(value: Any) -> int | None:
    return None if number(value) is None else max(0, int(number(value) or 1) - 1)


# Key, conversion (None for what cannot be read), and what needs no line.
_SIMPLE: dict[str, tuple[str, Callable[[Any], Any], Any]] = {
    "seed": ("seed", number, 42),
    "full_determinism": ("deterministic", _flag, False),
    "dataloader_drop_last": ("drop_last", _flag, False),
    "dataloader_prefetch_factor": ("data.loader.prefetch", number, None),
    "gradient_checkpointing": ("encoder.gradient_checkpointing", _flag, False),
    "activation_checkpointing": ("encoder.gradient_checkpointing", _flag, False),
    "torch_compile": ("compile", _flag, False),
    "learning_rate_mapping": ("learning_rate_mapping", _mapping, {}),
    "logging_steps": ("trainer.log_every_steps", number, 500),
    "save_total_limit": ("checkpoint.keep", _earlier, None),
    "resume_from_checkpoint": ("resume", _text, None),
    "run_name": ("name", _text, None),
}


def set_run(draft: Draft, arguments: Mapping[str, Any]) -> None:
    """Set what the arguments say of seeds, loaders, checkpoints, loggers, devices and strategies."""
    _simple(draft, arguments)
    _parallel(draft, arguments)


def _simple(draft: Draft, arguments: Mapping[str, Any]) -> None:
    for name, (key, convert, usual) in _SIMPLE.items():
        value = arguments.get(name)
        if value is None or value in (usual, ""):
            continue
        found = convert(value)
        if found is None:
            draft.note(f"{name}={value}: not understood")
        else:
            draft.set(key, found)
    clip = arguments.get("max_grad_norm")
    if clip is not None and number(clip) not in (None, 1.0):
        draft.set("clip_norm", number(clip) or None)
    workers = number(arguments.get("dataloader_num_workers"))
    if workers:
        draft.set("data.loader.num_workers", int(workers))
    if word(arguments.get("save_strategy")) == "steps" and number(arguments.get("save_steps", 500)):
        draft.set("checkpoint.every_n_steps", int(number(arguments.get("save_steps", 500)) or 500))
    if arguments.get("torchdynamo"):
        draft.set("compile", True)
    reported = str(arguments.get("report_to") or "")
    loggers = [name for name in ("wandb", "tensorboard") if name in reported or reported == "all"]
    if loggers:
        draft.choose("logger", loggers[0] if len(loggers) == 1 else "many")
    if arguments.get("use_cpu") is True or arguments.get("no_cuda") is True:
        draft.set("trainer.accelerator", "cpu")


def _parallel(draft: Draft, arguments: Mapping[str, Any]) -> None:
    deepspeed = arguments.get("deepspeed")
    if isinstance(deepspeed, Mapping):
        zero = deepspeed.get("zero_optimization", {})
        stage = int(number(zero.get("stage")) or 0)
        offloads = isinstance(zero.get("offload_optimizer"), Mapping)
        name = (
            "deepspeed_stage_2_offload" if stage == 2 and offloads else f"deepspeed_stage_{stage}"
        )
        draft.choose("strategy", name if stage else "ddp")
        draft.note("deepspeed: its stage is carried over, its other keys follow from the run")
    elif deepspeed:
        draft.note(
            f"deepspeed={deepspeed}: its stage stands in that file; set strategy=deepspeed_stage_N"
        )
    elif arguments.get("fsdp"):
        draft.choose("strategy", "fsdp")
    bucket, timeout = (
        number(arguments.get("ddp_bucket_cap_mb")),
        number(arguments.get("ddp_timeout")),
    )
    if bucket and "strategy" not in draft.choices:
        draft.choose("strategy", "ddp")
        draft.set("strategy.bucket_mib", bucket)
    if timeout and timeout != 1800:
        draft.set("strategy.timeout_s", timeout)
