"""The page of migration is written by the code, and complete for the installed sentence-transformers."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from types import FunctionType

import pytest
import sentence_transformers
import sentence_transformers.sentence_transformer.evaluation as evaluation
import sentence_transformers.sentence_transformer.losses as losses
import sentence_transformers.sentence_transformer.modules as modules
from omegaconf import DictConfig
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers, MultiDatasetBatchSamplers

from helpers.runs import compose_run
from inbatch.config.check import check_config
from inbatch.errors import ConfigError
from inbatch.migration import functions
from inbatch.migration.page import PAGE, page, tables

CONF = Path(__file__).parents[2] / "conf"
GROUPS = [
    path.name
    for path in CONF.iterdir()
    if path.is_dir() and path.name not in ("hydra", "local", "recipe", "schema")
]
TEXT = PAGE.read_text()

# Every name in the hyperparameter lists that model cards print.
CARD_ARGUMENTS = """
accelerator_config adafactor adam_beta1 adam_beta2 adam_epsilon auto_find_batch_size
average_tokens_across_devices batch_eval_metrics batch_sampler bf16 bf16_full_eval data_seed
dataloader_drop_last dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory
dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb
ddp_find_unused_parameters ddp_timeout debug deepspeed disable_tqdm dispatch_batches do_predict
eval_accumulation_steps eval_do_concat_batches eval_on_start eval_strategy
eval_use_gather_object fp16 fp16_backend fp16_full_eval fp16_opt_level fsdp fsdp_config
fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap full_determinism
gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs group_by_length
half_precision_backend hub_always_push hub_model_id hub_private_repo hub_strategy
ignore_data_skip include_for_metrics include_inputs_for_metrics include_num_input_tokens_seen
include_tokens_per_second jit_mode_eval label_names label_smoothing_factor learning_rate
length_column_name load_best_model_at_end local_rank log_level log_level_replica
log_on_each_node logging_nan_inf_filter lr_scheduler_kwargs lr_scheduler_type max_grad_norm
max_steps mp_parameters multi_dataset_batch_sampler neftune_noise_alpha no_cuda num_train_epochs
optim optim_args optim_target_modules overwrite_output_dir past_index per_device_eval_batch_size
per_device_train_batch_size per_gpu_eval_batch_size per_gpu_train_batch_size
prediction_loss_only prompts push_to_hub push_to_hub_model_id push_to_hub_organization ray_scope
remove_unused_columns restore_callback_states_from_checkpoint resume_from_checkpoint
save_on_each_node save_only_model save_safetensors seed skip_memory_metrics split_batches tf32
torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps torchdynamo
tpu_metrics_debug tpu_num_cores use_cpu use_ipex use_legacy_prediction_loop use_liger_kernel
use_mps_device warmup_ratio warmup_steps weight_decay
"""


def _rows(heading: str) -> dict[str, str]:
    """Rows below a heading: first cell -> second cell."""
    section = re.split(r"\n(?=### |<details>)", TEXT.split(heading + "\n", 1)[1])[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): cells[1].strip() for cells in rows[1:]}


REFUSED = _rows("<details><summary>What has no counterpart, and why</summary>")


def _named(heading: str) -> list[str]:
    """What has a row below a heading, or among those without a counterpart."""
    return re.findall(r"`(\w+)`", " ".join([*_rows(heading), *REFUSED]))


def test_the_tables_are_those_of_the_code() -> None:
    assert page() == TEXT, "run python -m inbatch.migration.page"
    assert tables().count("\n| ") > 100


def test_every_argument_has_one_row() -> None:
    known = {field.name for field in fields(SentenceTransformerTrainingArguments)}
    found = _named("### Training arguments")
    assert (set(CARD_ARGUMENTS.split()) | known) - {*found} == set()
    assert sorted(name for name in {*found} if found.count(name) > 1) == []


def test_every_loss_has_a_row() -> None:
    known = {name for name in losses.__all__ if name.endswith("Loss")}
    known.add("ContrastiveTensionLossInBatchNegatives")
    assert known - {*_named("### Losses")} == set()


def test_every_function_has_a_row() -> None:
    rows = {name.partition("(")[0] for name in {**functions.HERE, **functions.REFUSED}}
    public = {
        name
        for name in sentence_transformers.__all__
        if isinstance(getattr(sentence_transformers, name), FunctionType)
    }
    assert public <= rows
    for name in rows:
        found: object = sentence_transformers
        for part in name.split("."):
            found = getattr(found, part)
    assert {f"`{name}`" for name in functions.HERE} == _rows("### Functions").keys()


def test_every_evaluator_module_and_sampler_has_a_row() -> None:
    evaluators = {n for n in evaluation.__all__ if n.endswith(("Evaluator", "DataFrame"))}
    assert (
        evaluators - {"BaseEvaluator", "SentenceEvaluator"} - {*_named("### Evaluators")} == set()
    )
    kinds = {name for name in modules.__all__ if name[0].isupper()} - {"InputModule", "Module"}
    assert kinds - {*_named("### Modules")} == set()
    samplers = {each.value for each in (*BatchSamplers, *MultiDatasetBatchSamplers)}
    assert samplers - {*_named("### Samplers")} == set()


def _settings() -> list[str]:
    """What the second column says in code: ``group=file``, ``key`` or ``key=value``."""
    cells = " ".join([*_rows("### Training arguments").values(), *REFUSED.values()])
    spans = [part for span in re.findall(r"`([^`]+)`", cells) for part in span.split()]
    keys = {span for span in spans if re.fullmatch(r"[a-z_]+(\.[\w<>.]+)?(=[\w-]+)?", span)}
    return sorted(key for key in keys if not key.endswith((".jsonl", ".py")))


@pytest.mark.parametrize("setting", [s for s in _settings() if s.partition("=")[0] in GROUPS])
def test_a_named_file_exists(setting: str) -> None:
    group, _, name = setting.partition("=")
    assert not name or (CONF / group / f"{name}.yaml").exists()


@pytest.mark.parametrize("setting", [s for s in _settings() if "." in s])
def test_a_named_key_is_taken(setting: str) -> None:
    key, _, value = setting.replace("<source>", "pairs").partition("=")
    strategy = {"strategy.bucket_mib": "ddp", "strategy.reshard_after_forward": "fsdp"}.get(
        key, "auto"
    )
    sampler = "round_robin" if "within" in key else "no_duplicates"
    config = compose_run(
        f"strategy={strategy}",
        f"sampler={sampler}",
        "data.train.pairs=x",
        f"++{key}={value or 'null'}",
    )
    assert "valid key" not in _refusal(config)  # null may be the wrong value of a key that is right


def _refusal(config: DictConfig) -> str:
    try:
        check_config(config)
    except ConfigError as error:
        return str(error).replace("unknown key", "valid key")
    return ""
