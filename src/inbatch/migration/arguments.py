"""What becomes of each training argument of sentence-transformers and transformers, of all versions.

`HERE` and `ELSEWHERE` are the rows of the migration page too, see `page`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

HERE: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("per_device_train_batch_size", "per_gpu_train_batch_size"),
        "`global_batch_size` = that number x devices; negatives come from all of it, so one device with "
        "the same `global_batch_size` trains the same",
    ),
    (("gradient_accumulation_steps",), "`accumulate`"),
    (
        ("mini_batch_size",),
        "(of a cached loss) `gradcache=rows gradcache.chunk_size`, or better `gradcache=tokens "
        "gradcache.chunk_tokens`, with any loss",
    ),
    (
        ("batch_sampler",),
        "`sampler=batch` for `batch_sampler`, `sampler=no_duplicates`, `sampler=group_by_label`; with "
        "several sources `sampler.within._target_`",
    ),
    (("multi_dataset_batch_sampler",), "`sampler=round_robin`, `sampler=proportional`"),
    (("num_train_epochs",), "`trainer.max_epochs`, whole epochs"),
    (
        ("max_steps",),
        "`trainer.max_steps`; there it replaces the epochs, here the first limit ends the run: "
        "`trainer.max_epochs=-1` leaves only the steps",
    ),
    (("learning_rate",), "`optimizer.lr`"),
    (("weight_decay",), "`optimizer.weight_decay`; biases and norms do not decay, as there"),
    (("adam_beta1", "adam_beta2"), "`optimizer.betas`"),
    (("adam_epsilon",), "`optimizer.eps`"),
    (("max_grad_norm",), "`clip_norm`; null for no clipping"),
    (
        ("optim", "adafactor"),
        "`optimizer=adamw` (`adamw_torch`, `adamw_torch_fused`), `adafactor`, `adagrad`, `rmsprop`, `sgd`",
    ),
    (("optim_args",), "the keys of `optimizer`"),
    (
        ("lr_scheduler_type",),
        "`schedule=linear`, `cosine`, `cosine_with_restarts`, `polynomial`, `constant`, "
        "`constant_with_warmup`, `inverse_sqrt`, `cosine_with_min_lr`, `warmup_stable_decay`",
    ),
    (("lr_scheduler_kwargs",), "the keys of `schedule`"),
    (("warmup_ratio",), "`schedule.warmup_ratio`"),
    (("warmup_steps",), "`schedule.warmup_steps`; more than 0 wins over the ratio"),
    (("learning_rate_mapping",), "`learning_rate_mapping`"),
    (
        ("prompts",),
        "`encoder.prompts` by role (saved with the model), or `data.train.<source>.prompts` by column",
    ),
    (("label_names",), "`data.train.<source>.columns.label`"),
    (
        ("bf16",),
        "`precision=bf16`, which `auto` (the default) takes where the device computes it natively; "
        "`precision=fp32` for neither `bf16` nor `fp16`",
    ),
    (("fp16",), "`precision=fp16`, on GPUs"),
    (("tf32",), "`precision=tf32`, on GPUs; matrix products are exact float32 otherwise"),
    (("seed",), "`seed`"),
    (("full_determinism",), "`deterministic=true`"),
    (
        ("eval_strategy", "evaluation_strategy"),
        "`evaluation.every_steps` for `steps`, `evaluation.every_epoch` for `epoch`, no `data.eval` for `no`",
    ),
    (("eval_steps",), "`evaluation.every_steps`"),
    (("eval_on_start",), "`evaluation.at_start`, here true"),
    (
        ("load_best_model_at_end",),
        "always: with evaluators `model/` is the best by `evaluation.best_metric`, without the last",
    ),
    (("metric_for_best_model",), "`evaluation.best_metric`, without `eval_` in front"),
    (("greater_is_better",), "`evaluation.mode=min` for false"),
    (
        ("save_strategy", "save_steps"),
        "`checkpoint.every_n_steps`, beside the end of each epoch",
    ),
    (("save_total_limit",), "`checkpoint.keep`, which counts those beside the last"),
    (("logging_strategy", "logging_steps"), "`trainer.log_every_steps`"),
    (("report_to",), "`logger=wandb`, `tensorboard`, `csv`, beside `metrics.jsonl`"),
    (("run_name",), "`name`"),
    (("output_dir", "logging_dir"), "`output_dir`"),
    (("dataloader_drop_last",), "`drop_last`"),
    (
        ("dataloader_num_workers",),
        "`data.loader.num_workers`; `auto` is up to four per GPU, none on a CPU",
    ),
    (("dataloader_prefetch_factor",), "`data.loader.prefetch`"),
    (("dataloader_persistent_workers",), "always, where there are workers"),
    (
        ("resume_from_checkpoint",),
        "`resume`: `auto` (the run's own last checkpoint), `never`, or a path",
    ),
    (("restore_callback_states_from_checkpoint", "save_safetensors"), "always"),
    (("gradient_checkpointing", "activation_checkpointing"), "`encoder.gradient_checkpointing`"),
    (("torch_compile", "torchdynamo"), "`compile`"),
    (("no_cuda", "use_cpu"), "`trainer.accelerator=cpu`"),
    (("ddp_timeout",), "`strategy.timeout_s`"),
    (("ddp_bucket_cap_mb",), "`strategy=ddp strategy.bucket_mib`"),
    (("fsdp",), "`strategy=fsdp`"),
    (("fsdp_config",), "`strategy.reshard_after_forward`"),
    (
        ("deepspeed",),
        "`strategy=deepspeed_stage_1`, `deepspeed_stage_2`, `deepspeed_stage_2_offload`, `deepspeed_stage_3`",
    ),
    (("include_tokens_per_second",), "always: `perf/tokens_per_s` in `metrics.jsonl`"),
    (
        ("include_num_input_tokens_seen",),
        "always: `perf/tokens_seen` and `perf/texts_seen` in `metrics.jsonl`",
    ),
    (("skip_memory_metrics",), "always measured: `perf/peak_memory_gib`"),
)


class Elsewhere(NamedTuple):
    """Arguments without a setting, why, and whether a run with them was another run."""

    names: tuple[str, ...]
    reason: str
    counts: bool = False


_GALORE = (
    "GaLore and similar optimizers are not offered; `encoder.freeze` and `learning_rate_mapping` choose "
    "parameters"
)
_HUB = "training writes to disk only; `inbatch push output_dir OWNER/NAME` publishes the model"
_GATHERED = "evaluators see all embeddings at once, gathered as tensors"
_SPLIT = (
    "a global batch is always split over the ranks, each reads its own rows, and uneven last batches are "
    "weighted by rows"
)
_SORTED = "a batch is sorted by length into chunks, so little is padded and the batch stays random"
_DEVICES = "CUDA and CPU only"
_AUTOCAST = "half precision is torch's autocast; there is no apex"
_KERNELS = "no TorchScript, IPEX or Liger; `compile`"
_CONSOLE = "rank 0 prints; libraries print only warnings"
ELSEWHERE: tuple[Elsewhere, ...] = (
    Elsewhere(("optim_target_modules",), _GALORE, counts=True),
    Elsewhere(("label_smoothing_factor",), "no loss here predicts classes", counts=True),
    Elsewhere(
        ("neftune_noise_alpha",),
        "embeddings get no noise, so that gradient caching can repeat a forward exactly",
        counts=True,
    ),
    Elsewhere(("router_mapping",), "models with two towers are not trained here", counts=True),
    Elsewhere(("remove_unused_columns",), "columns without a role are never read"),
    Elsewhere(("half_precision_backend", "fp16_backend", "fp16_opt_level"), _AUTOCAST),
    Elsewhere(
        ("bf16_full_eval", "fp16_full_eval"),
        "evaluation while training has the precision of training, `inbatch evaluate` computes in float32",
    ),
    Elsewhere(("data_seed",), "the order of rows follows `seed` too", counts=True),
    Elsewhere(("eval_delay",), "evaluation begins with the run"),
    Elsewhere(
        ("per_device_eval_batch_size", "per_gpu_eval_batch_size"),
        "evaluation fills chunks with tokens, sorted by length",
    ),
    Elsewhere(
        (
            *("eval_accumulation_steps", "eval_do_concat_batches", "batch_eval_metrics"),
            *("eval_use_gather_object", "use_legacy_prediction_loop"),
        ),
        _GATHERED,
    ),
    Elsewhere(("prediction_loss_only",), "evaluators give metrics, there is no evaluation loss"),
    Elsewhere(
        ("include_inputs_for_metrics", "include_for_metrics"), "evaluators hold their own texts"
    ),
    Elsewhere(
        ("do_train", "do_eval", "do_predict"),
        "`inbatch evaluate encoder.model=MODEL data.eval=FILE` evaluates a saved model",
    ),
    Elsewhere(
        ("dataloader_pin_memory", "dataloader_multiprocessing_context", "dataloader_in_order"),
        "there is no switch",
    ),
    Elsewhere(("group_by_length", "length_column_name", "train_sampling_strategy"), _SORTED),
    Elsewhere(("split_batches", "dispatch_batches", "accelerator_config"), _SPLIT),
    Elsewhere(
        ("average_tokens_across_devices",),
        "losses are means over rows, weighted by the rows of each rank",
    ),
    Elsewhere(
        ("ignore_data_skip",),
        "a resumed run continues with the next batch without reading those before it",
    ),
    Elsewhere(
        ("overwrite_output_dir",),
        "a run resumes in its own `output_dir` (`resume=auto`) and never overwrites that of another",
    ),
    Elsewhere(
        ("save_only_model", "enable_jit_checkpoint"),
        "`model/` holds the model only, checkpoints always hold all that resuming needs",
    ),
    Elsewhere(("save_on_each_node",), "rank 0 writes to `output_dir`, which all nodes see"),
    Elsewhere(
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
        "the non-reentrant form, always",
    ),
    Elsewhere(("use_cache",), "an encoder has no cache of keys and values"),
    Elsewhere(("torch_compile_backend", "torch_compile_mode"), "torch's defaults"),
    Elsewhere(("jit_mode_eval", "use_ipex", "use_liger_kernel", "liger_kernel_config"), _KERNELS),
    Elsewhere(
        ("auto_find_batch_size",),
        "the batch is part of the loss; `gradcache` makes it fit, and makes chunks smaller when memory "
        "runs out",
        counts=True,
    ),
    Elsewhere(("torch_empty_cache_steps",), "chunks bound the memory of a step"),
    Elsewhere(("use_mps_device", "tpu_num_cores", "tpu_metrics_debug"), _DEVICES),
    Elsewhere(("local_rank",), "torchrun, srun or `trainer.devices` start the ranks"),
    Elsewhere(("ddp_backend",), "nccl on GPUs, gloo on CPUs"),
    Elsewhere(("ddp_find_unused_parameters", "ddp_static_graph"), "encoders have none"),
    Elsewhere(("ddp_broadcast_buffers",), "encoders have no buffers that change"),
    Elsewhere(
        ("fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap"),
        "each transformer layer is a unit",
    ),
    Elsewhere(
        ("parallelism_config",), "ranks share the rows of a batch, and `fsdp` the parameters"
    ),
    Elsewhere(("mp_parameters", "ray_scope"), "no SageMaker model parallelism, no Ray"),
    Elsewhere(
        ("logging_nan_inf_filter", "logging_first_step"),
        "a loss is logged as it is, and that of step 1 always",
    ),
    Elsewhere(("disable_tqdm",), "one line on a terminal, plain lines in a file"),
    Elsewhere(("log_level", "log_level_replica", "log_on_each_node"), _CONSOLE),
    Elsewhere(("debug", "past_index"), "unused"),
    Elsewhere(
        ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        "of another logger",
    ),
    Elsewhere(
        (
            *("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push"),
            *("hub_token", "hub_revision", "push_to_hub_model_id", "push_to_hub_organization"),
            "push_to_hub_token",
        ),
        _HUB,
    ),
)

#: Arguments that a setting stands for.
TAKEN = frozenset(name for names, _ in HERE for name in names) | {"steps_per_epoch"}
#: Why others have none.
NOT_APPLICABLE = {name: row.reason for row in ELSEWHERE for name in row.names}
#: Of these, the ones without which a run is another one.
COUNTS = frozenset(name for row in ELSEWHERE if row.counts for name in row.names)
#: Values that are usual in a list of all arguments, beside nothing, false and 0.
USUAL: dict[str, tuple[Any, ...]] = {
    "prediction_loss_only": (True,),
    "log_level": ("passive",),
    "log_level_replica": ("warning",),
    "log_on_each_node": (True,),
    "logging_nan_inf_filter": (True,),
    "fp16_opt_level": ("O1",),
    "half_precision_backend": ("auto",),
    "fp16_backend": ("auto",),
    "dataloader_pin_memory": (True,),
    "dataloader_in_order": (True,),
    "past_index": (-1,),
    "remove_unused_columns": (True,),
    "length_column_name": ("length",),
    "train_sampling_strategy": ("random",),
    "per_device_eval_batch_size": (8,),
    "hub_strategy": ("every_save",),
    "eval_do_concat_batches": (True,),
    "eval_delay": (0,),
    "ray_scope": ("last",),
    "project": ("huggingface",),
    "trackio_space_id": ("trackio",),
    "do_train": (True,),
    "do_eval": (True,),
    "local_rank": (-1, 0),
    "overwrite_output_dir": (True,),
    "use_cache": (True,),
    "accelerator_config": (),
}
