"""Every key that conf/mine.yaml may hold, its type and its default; see schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from omegaconf import MISSING
from pydantic import Field

from inbatch.config.embed_schema import RanksConfig
from inbatch.config.schema import Auto, Keys, Natural, Positive

Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass
class MineDataConfig(Keys):
    """conf/mine.yaml, `data`: the rows that get negatives, see `DataConfig`."""

    train: Any = MISSING
    columns: dict[str, Any] = field(default_factory=dict)
    cache_dir: str | None = None


@dataclass
class MineGuideConfig(Keys):
    """conf/mine.yaml, `guide`: another model, which filters candidates or whose scores are kept.

    model: a directory, hub name or pkg://package/directory; null means no guide.
    revision, max_length, prompts, trust_remote_code: as of an encoder, null and {} as the model has them.
    """

    model: str | None = None
    revision: str | None = None
    max_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False


@dataclass
class MineKeys(Keys):
    """conf/mine.yaml, `mine`: where negatives come from, which are left out, and how they are written.

    corpus: files with further documents, or the keys of such a source, as `data.texts` of `inbatch embed`;
        null for the documents of `data.train` alone.
    corpus_columns: text, a column or a template such as "{title} {text}", and key, a column of the same keys
        as `data.columns.key`; the text is recognised by common names.
    corpus_embeddings: folder in which `inbatch embed` has stored those of `corpus`; null embeds them here.
    num_negatives: most negatives of a query.
    min_negatives: rows that get fewer are left out, and counted; 0 keeps all.
    range_min: ranks that are left out at the front, counted among the candidates that no other key leaves
        out.
    range_max: the rank at which candidates end; null for range_min and what num_negatives needs: ten times as
        many where something filters or draws, and the positives of the query with most of them.
    max_score: candidates with a higher score are left out; null for no limit.
    min_score: candidates with a lower score are left out; null for no limit.
    absolute_margin: how far a negative's score is below that of the positive, at least.
    relative_margin: the same as a share of the positive's score; 0.05 is TopK-PercPos of NV-Retriever at 95%.
    percentage: the same as the percentage of the positive's score that a negative has at most, such as 95.
    guide_margin: how far a negative's score by the guide is below the guide's of the positive, at least.
    choice: top (the highest scores), random, or softmax (drawn by score / temperature), of the candidates
        left.
    temperature: of softmax; null for 0.05.
    scores: whose scores are written beside the texts: model, guide, none, or auto for those of the guide
        where there is one.
    output: list (a row for each row, with a list of negatives), triplet, or n-tuple (a column for each).
    files: parquet or jsonl.
    search: exact, or faiss for an approximate index.
    faiss_index: of faiss, as its index_factory reads it; null for IVF with inner products.
    faiss_probes: lists of an IVF index that a query looks at.
    block_queries: queries that are searched together, and saved as a whole.
    shard_rows: rows of `data.train` behind one file.
    """

    corpus: Any = None
    corpus_columns: dict[str, Any] = field(default_factory=dict)
    corpus_embeddings: str | None = None
    num_negatives: Positive = 5
    min_negatives: Natural = 0
    range_min: Natural = 0
    range_max: Positive | None = None
    max_score: Number | None = None
    min_score: Number | None = None
    absolute_margin: Number | None = None
    relative_margin: Number | None = None
    percentage: Annotated[float, Field(gt=0, le=100)] | None = None
    guide_margin: Number | None = None
    choice: Literal["top", "random", "softmax"] = "top"
    temperature: Annotated[float, Field(gt=0)] | None = None
    scores: Literal["auto", "model", "guide", "none"] = "auto"
    output: Literal["list", "triplet", "n-tuple"] = "list"
    files: Literal["parquet", "jsonl"] = "parquet"
    search: Literal["exact", "faiss"] = "exact"
    faiss_index: str | None = None
    faiss_probes: Positive | None = None
    block_queries: Positive = 1024
    shard_rows: Positive = 65536

    @property
    def margin(self) -> float | None:
        """The relative margin, however it was given."""
        return self.relative_margin if self.percentage is None else 1 - self.percentage / 100

    @property
    def filters(self) -> bool:
        """Whether a candidate may be left out for its score, or for a draw."""
        limits = (self.max_score, self.absolute_margin, self.margin, self.guide_margin)
        return self.choice != "top" or any(limit is not None for limit in limits)


@dataclass
class MineConfig(Keys):
    """conf/mine.yaml: hard negatives for the rows of `data.train`.

    encoder: a node with a `_target_`, from the group's files; its scores decide.
    precision: fp32, or bf16 for mixed precision, in which texts are embedded.
    chunk_tokens: computed tokens of one forward, at least encoder.max_length; or "auto".
    seed: of what is drawn.
    output_dir: folder for all that is written.
    """

    data: MineDataConfig = field(default_factory=MineDataConfig)
    encoder: Any = None
    guide: MineGuideConfig = field(default_factory=MineGuideConfig)
    mine: MineKeys = field(default_factory=MineKeys)
    trainer: RanksConfig = field(default_factory=RanksConfig)
    precision: Literal["fp32", "bf16"] = "fp32"
    chunk_tokens: Positive | Auto = "auto"
    seed: Natural = 42
    output_dir: str = "outputs/mined"
