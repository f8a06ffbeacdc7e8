"""Every key that conf/train.yaml and its groups may hold, its type and its default.

A default stands here and nowhere else: the fields below are what Hydra composes first (compose.py), a YAML
file holds only what its choice changes. What stands as `Any` is a node with a `_target_`, whose
schema is the signature of what it names, defaults included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from omegaconf import MISSING
from pydantic import ConfigDict, Field

_PACKAGED = Path(__file__).parents[1] / "conf"
#: The YAML files: in the package where it is installed, else in the checkout.
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16", "bf16-true", "fp64"]
#: Lightning's names; "auto" is replaced before they are asked for, see run/precision.py.
PRECISIONS: dict[str, str] = {
    "fp32": "32-true",
    "tf32": "32-true",  # with products of TF32, see device/matmul_precision.py
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "bf16-true": "bf16-true",
    "fp64": "64-true",
}
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Limit = Annotated[int, Field(ge=-1)]  # -1 for none
Auto = Literal["auto"]


@dataclass
class Keys:
    """A group of keys, which takes no others."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass
class LoaderConfig(Keys):
    """conf/data/*.yaml, `loader`: how batches are read ahead.

    num_workers: processes of a rank that read and tokenize; 0 reads between the steps, "auto" takes up
        to four for a GPU and none on a CPU, whose cores all compute.
    prefetch: batches that each of them holds ready.
    """

    num_workers: Natural | Auto = "auto"
    prefetch: Positive = 2


@dataclass
class DataConfig(Keys):
    """conf/data: what is trained and evaluated on, and how it is read.

    train: files, or sources by name; a source is files or the keys of `data.spec.SourceSpec`.
    eval: files, or evaluation sets by name; what they measure follows from their columns.
    columns: roles that hold in all of them, where they do not say otherwise.
    generate: a node with a `_target_` that is called before any file is read, on every node of a
        cluster; it writes files that `train` names, unless they are there.
    loader: how batches are read ahead.
    cache_dir: folder for files that are converted once, null for that of `datasets`.
    """

    train: Any = MISSING
    eval: Any = None
    columns: dict[str, Any] = field(default_factory=dict)
    generate: Any = None
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    cache_dir: str | None = None


@dataclass
class GradcacheConfig(Keys):
    """conf/gradcache: chunks of a step and the graphs that are kept between its passes.

    chunk_size: most texts of a chunk, null for no limit.
    chunk_tokens: most computed tokens of a chunk, null for no limit, or "auto".
    keep_gib: GiB of graphs that are kept (those chunks are embedded once), null for all, or "auto"
        for as much as fits.
    """

    chunk_size: Positive | None = None
    chunk_tokens: Positive | Auto | None = "auto"
    keep_gib: Annotated[float, Field(ge=0)] | Auto | None = None


@dataclass
class GuideConfig(Keys):
    """conf/guide: the frozen guide of GIST losses, and the teacher of losses of distillation.

    model: a directory, hub name or pkg://package/directory; null means no guide.
    revision, max_length, prompts, trust_remote_code: as of an encoder, null and {} as the model has them.
    mode: "stored" embeds each distinct text once and looks it up from then on; the texts of the first
        batches are embedded before the first step, the others as training gets to them. "live" embeds every
        batch anew.
    store_dir: the embeddings, by guide, prompt and text; for all runs, and seen by all nodes.
    store_dtype: float16, or float32 for exact values at twice the size.
    chunk_tokens: computed tokens of one forward of the guide, or "auto".
    """

    model: str | None = None
    revision: str | None = None
    max_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    mode: Literal["stored", "live"] = "stored"
    store_dir: str = "outputs/guide_store"
    store_dtype: Literal["float16", "float32"] = "float16"
    chunk_tokens: Positive | Auto = "auto"


@dataclass
class TrainerConfig(Keys):
    """conf/trainer: length of the run, devices, and how often metrics are logged.

    max_epochs: passes over the data, -1 for no limit.
    max_steps: optimizer steps, -1 for no limit; the limit that comes first ends the run.
    accelerator: cpu, cuda, or auto for a GPU where there is one; gpu is another name of cuda.
    devices: processes on this machine, one per device, or "auto" for all devices.
    num_nodes: machines of the run.
    log_every_steps: optimizer steps between two rows of `metrics.jsonl`.
    """

    max_epochs: Limit = 1
    max_steps: Limit = -1
    accelerator: Literal["auto", "cpu", "cuda", "gpu"] = "auto"
    devices: int | str = "auto"
    num_nodes: Positive = 1
    log_every_steps: Positive = 10


@dataclass
class CheckpointConfig(Keys):
    """`checkpoint`: further checkpoints beside those at the end of each epoch and of the run.

    every_n_steps: optimizer steps between checkpoints; null for none inside an epoch.
    keep: earlier checkpoints that are kept beside the last, for when that cannot be read.
    """

    every_n_steps: Positive | None = None
    keep: Natural = 1


@dataclass
class EmaConfig(Keys):
    """`ema`: the exponential moving average of the weights, which is then what is evaluated and exported.

    decay: share of the average that stays from one optimizer step to the next, 0.99 say, below 1; null for
        no average.
    """

    decay: Annotated[float, Field(gt=0, lt=1)] | None = None


@dataclass
class EvaluationConfig(Keys):
    """conf/evaluation: evaluators by name, when they run, and which metric chooses the model.

    evaluators: nodes with a `_target_` by name; {} chooses them by the columns of `data.eval`.
    every_steps: optimizer steps between evaluations, null for none inside an epoch.
    at_start: evaluate before the first step.
    every_epoch: evaluate at the end of each epoch.
    best_metric: the metric that chooses the model, such as dev_cosine_ndcg@10. null takes the first
        evaluation set alone: the evaluators of `evaluation` come first, then the sets of `data.eval`, each in
        their order. Its metric is the accuracy of triplets, the nDCG of retrieval, Spearman's correlation of
        scored pairs or the average precision of labelled pairs.
    mode: whether the largest or the smallest value is best.
    """

    evaluators: dict[str, Any] = field(default_factory=dict)
    every_steps: Positive | None = None
    at_start: bool = True
    every_epoch: bool = True
    best_metric: str | None = None
    mode: Literal["max", "min"] = "max"


@dataclass
class CardConfig(Keys):
    """`card`: facts for the model card that no run can know.

    model_name: null for the name of the run.
    base_model: name of the model that training started from, null for that of `encoder.model`; a name on the
        hub is linked.
    datasets: {source or evaluation set: its name}, `owner/name` for one on the hub, which is linked.
    language: ISO 639-1 codes.
    license: identifier, as the Hugging Face hub lists them.
    tags: further tags.
    """

    model_name: str | None = None
    base_model: str | None = None
    datasets: dict[str, str] = field(default_factory=dict)
    language: list[str] = field(default_factory=list)
    license: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class RunConfig(Keys):
    """The whole run. `global_batch_size` is the one dial for scale.

    encoder, sampler, optimizer, schedule, strategy: a node with a `_target_` each, from the group's files.
    loss: a node with a `_target_`, or one for each source by name.
    pruner: a node with a `_target_` that stops trials of a sweep early, {} for none.
    logger: nodes with a `_target_` by name, loggers beside `metrics.jsonl`.
    name: of the run, its folder and its model; `run` stands for the last part of `output_dir`.
    output_dir: folder for all that the run writes.
    data_dir: folder that the files of experiments are below.
    seed: of weights, order of rows and dropout.
    global_batch_size: rows that are contrasted with each other in a step, over all ranks.
    accumulate: global batches of one update, each contrasted within itself.
    drop_last: leave the last, smaller batch of an epoch out.
    gather: global (negatives of all ranks), ring (the same, and each rank holds its own rows and those
        of two others at a time), or local (negatives of this rank only, which is another loss).
    clip_norm: largest norm of the gradient, null for no clipping.
    learning_rate_mapping: {regular expression over parameter names, those of losses included: learning rate}.
    precision: auto (bf16 where the device computes it natively: GPUs of compute capability 8.0, CPUs with
        AVX512-BF16 or AMX; else fp32), fp32, tf32, bf16, fp16 (autocast), bf16-true, fp64.
    deterministic: refuse operations whose result differs from run to run.
    compile: run the encoder through torch.compile.
    on_nonfinite: stop (end the run, with the place and the gradients written to nonfinite.json) or skip
        (leave the step out and count it) where a gradient is not finite.
    resume: auto (from the run's own last checkpoint), never, or the path of a checkpoint.
    """

    data: DataConfig = field(default_factory=DataConfig)
    encoder: Any = None
    loss: Any = None
    sampler: Any = None
    gradcache: GradcacheConfig = field(default_factory=GradcacheConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    optimizer: Any = None
    schedule: Any = None
    strategy: Any = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    pruner: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    card: CardConfig = field(default_factory=CardConfig)
    name: str = "run"
    output_dir: str = "outputs/${name}"
    data_dir: str = "."
    seed: Natural = 42
    global_batch_size: Positive = 64
    accumulate: Positive = 1
    drop_last: bool = False
    gather: Literal["global", "ring", "local"] = "global"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    learning_rate_mapping: dict[str, float] = field(default_factory=dict)
    precision: Precision = "auto"
    deterministic: bool = False
    compile: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    resume: str = "auto"
