"""Every key of conf/evaluate.yaml and conf/compare.yaml, its type and its default; see schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from omegaconf import MISSING
from pydantic import Field

from inbatch.config.schema import EvaluationConfig, Keys, Natural, Positive


@dataclass
class JudgeConfig(EvaluationConfig):
    """`evaluation` of `inbatch evaluate` and `inbatch compare`: that of a run, and forms of the embeddings.

    truncate_dims: numbers of leading dimensions to evaluate beside all of them, as of a model that was
        trained with loss=matryoshka.
    quantisations: precisions to evaluate beside float32 (int8, uint8, binary, ubinary), for all dimensions
        and for each of truncate_dims. Texts are embedded once for all of them.
    """

    truncate_dims: list[Positive] = field(default_factory=list)
    quantisations: list[Literal["float32", "int8", "uint8", "binary", "ubinary"]] = field(
        default_factory=list
    )


@dataclass
class EvaluateDataConfig(Keys):
    """`data` of a command that measures saved models: see `DataConfig`."""

    eval: Any = None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass
class MtebConfig(Keys):
    """`mteb`: tasks of the package mteb, which come from the hub.

    tasks: their names, such as NFCorpus or STSBenchmark; [] for none.
    languages: ISO 639-3 codes of the parts to take of tasks in several languages; [] for all.
    """

    tasks: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)


@dataclass
class EvaluateConfig(Keys):
    """conf/evaluate.yaml: one evaluation of a saved model.

    device: cpu, cuda, or auto for a GPU where there is one.
    devices: processes on this machine, one per device; "auto" for those that torchrun or srun has started, or
        one where neither has.
    num_nodes: machines.
    chunk_tokens: computed tokens of one forward.
    output_dir: folder for the results.
    """

    data: EvaluateDataConfig = field(default_factory=EvaluateDataConfig)
    encoder: Any = None
    evaluation: JudgeConfig = field(default_factory=JudgeConfig)
    mteb: MtebConfig = field(default_factory=MtebConfig)
    device: str = "auto"
    devices: int | str = "auto"
    num_nodes: Positive = 1
    chunk_tokens: Positive = 8192
    output_dir: str = "outputs/evaluation"


@dataclass
class CompareConfig(Keys):
    """conf/compare.yaml: several models on the same sets.

    models: directories, folders of runs or hub names; a list, or by names of your own. Differences are to the
        first.
    resamples: draws of the bootstrap, at least 100.
    confidence: of its intervals; two models are told apart where the one of their difference leaves 0 out.
    seed: of its draws, which are the same for all models.
    device: cpu, cuda, or auto for a GPU where there is one.
    devices: processes on this machine, one per device; "auto" for those that torchrun or srun has started, or
        one where neither has.
    num_nodes: machines.
    chunk_tokens: computed tokens of one forward.
    output_dir: folder for the results.
    """

    models: Any = MISSING
    data: EvaluateDataConfig = field(default_factory=EvaluateDataConfig)
    encoder: Any = None
    evaluation: JudgeConfig = field(default_factory=JudgeConfig)
    resamples: Annotated[int, Field(ge=100)] = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Natural = 0
    device: str = "auto"
    devices: int | str = "auto"
    num_nodes: Positive = 1
    chunk_tokens: Positive = 8192
    output_dir: str = "outputs/comparison"
