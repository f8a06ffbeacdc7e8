"""The run's configuration as dataclasses: every key that conf/train.yaml and its groups may hold.

What stands as `Any` is a node with a `_target_`, whose schema is the signature of what it names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PACKAGED = Path(__file__).parents[1] / "conf"
#: The YAML files: in the package where it is installed, else in the checkout.
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"

PRECISIONS = {
    "fp32": "32-true",
    "tf32": "32-true",  # with products of TF32, see device/matmul_precision.py
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "bf16-true": "bf16-true",
    "fp64": "64-true",
}


@dataclass
class LoaderConfig:
    """conf/data/*.yaml, `loader`: how batches are read ahead.

    num_workers: processes of a rank that read and tokenize; 0 reads between the steps, "auto" takes up
        to four for a GPU and none on a CPU, whose cores all compute.
    prefetch: batches that each of them holds ready.
    """

    num_workers: int | str = "auto"
    prefetch: int = 2


@dataclass
class DataConfig:
    """conf/data: what is trained and evaluated on, and how it is read.

    train: files, or sources by name; a source is files or the keys of `data.spec.SourceSpec`.
    eval: files, or evaluation sets by name; what they measure follows from their columns.
    columns: roles that hold in all of them, where they do not say otherwise.
    """

    train: Any = field(default_factory=dict)
    eval: Any = None
    columns: dict[str, Any] = field(default_factory=dict)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    cache_dir: str | None = None
    demo: bool = False


@dataclass
class GradcacheConfig:
    """conf/gradcache: chunks of a step and the graphs that are kept between its passes.

    chunk_size: most texts of a chunk, null for no limit.
    chunk_tokens: most computed tokens of a chunk, null for no limit, or "auto".
    keep_gib: GiB of graphs that are kept (those chunks are embedded once), null for all, or "auto"
        for as much as fits.
    """

    chunk_size: int | None = None
    chunk_tokens: int | str | None = None
    keep_gib: int | float | str | None = None


@dataclass
class GuideConfig:
    """conf/guide: the frozen guide of GIST losses.

    model: a directory, hub name or pkg://package/directory; null means no guide.
    revision, max_length, prompts, trust_remote_code: as of an encoder, null and {} as the model has them.
    mode: "stored" embeds each distinct text once, before the first step, and looks it up from then
        on; "live" embeds every batch anew.
    store_dir: the embeddings, by guide, prompt and text; for all runs, and seen by all nodes.
    store_dtype: float16, or float32 for exact values at twice the size.
    chunk_tokens: computed tokens of one forward of the guide, or "auto".
    """

    model: str | None = None
    revision: str | None = None
    max_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    mode: str = "stored"
    store_dir: str = "outputs/guide_store"
    store_dtype: str = "float16"
    chunk_tokens: int | str = "auto"


@dataclass
class TrainerConfig:
    """conf/trainer: length of the run, devices, and how often metrics are logged.

    max_epochs: passes over the data, -1 for no limit.
    max_steps: optimizer steps, -1 for no limit; the limit that comes first ends the run.
    accelerator: cpu, cuda, or auto for a GPU where there is one; gpu is another name of cuda.
    devices: processes on this machine, one per device, or "auto" for all devices.
    num_nodes: machines of the run.
    log_every_steps: optimizer steps between two rows of `metrics.jsonl`.
    """

    max_epochs: int = 1
    max_steps: int = -1
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    log_every_steps: int = 10


@dataclass
class CheckpointConfig:
    """`checkpoint`: when the whole state is written beside the end of the run and of each epoch.

    every_n_steps: optimizer steps between checkpoints; null for none inside an epoch.
    keep: earlier checkpoints that are kept beside the last.
    """

    every_n_steps: int | None = None
    keep: int = 0


@dataclass
class EvaluationConfig:
    """conf/evaluation: evaluators by name, when they run, and which metric chooses the model."""

    evaluators: dict[str, Any] = field(default_factory=dict)
    every_steps: int | None = None
    at_start: bool = True
    every_epoch: bool = True
    best_metric: str | None = None
    mode: str = "max"


@dataclass
class EvaluateDataConfig:
    """conf/evaluate.yaml, `data`: see `DataConfig`."""

    eval: Any = None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """conf/evaluate.yaml: one evaluation of a saved model.

    device: cpu, cuda, or auto for a GPU where there is one.
    chunk_tokens: computed tokens of one forward.
    output_dir: folder for the results.
    """

    data: EvaluateDataConfig = field(default_factory=EvaluateDataConfig)
    encoder: Any = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    device: str = "auto"
    chunk_tokens: int = 8192
    output_dir: str = "outputs/evaluation"


@dataclass
class CardConfig:
    """`card`: facts for the model card that no run can know.

    model_name: null for the name of the run.
    language: ISO 639-1 codes.
    license: identifier, as the Hugging Face hub lists them.
    tags: further tags.
    """

    model_name: str | None = None
    language: list[str] = field(default_factory=list)
    license: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """The whole run. `global_batch_size` is the one dial for scale.

    name: of the run, its folder and its model.
    output_dir: folder for all that the run writes.
    data_dir: folder that the files of experiments are below.
    seed: of weights, order of rows and dropout.
    global_batch_size: rows that are contrasted with each other in a step, over all ranks.
    accumulate: global batches of one update, each contrasted within itself.
    drop_last: leave the last, smaller batch of an epoch out.
    gather: global (negatives of all ranks), ring (the same, and each rank holds its own rows and those
        of two others at a time), or local (negatives of this rank only, which is another loss).
    clip_norm: largest norm of the gradient, null for no clipping.
    learning_rate_mapping: {regular expression over parameter names: learning rate}.
    precision: fp32, tf32, bf16, fp16 (autocast), bf16-true, fp64.
    deterministic: refuse operations whose result differs from run to run.
    compile: run the encoder through torch.compile.
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
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    pruner: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    card: CardConfig = field(default_factory=CardConfig)
    name: str = "run"
    seed: int = 42
    global_batch_size: int = 64
    accumulate: int = 1
    drop_last: bool = False
    gather: str = "global"
    clip_norm: float | None = 1.0
    learning_rate_mapping: dict[str, float] = field(default_factory=dict)
    precision: str = "fp32"
    deterministic: bool = False
    compile: bool = False
    resume: str = "auto"
    output_dir: str = "outputs/run"
    data_dir: str = "."
