"""The losses themselves: names, arguments and settings of sentence-transformers 6.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from inbatch.errors import ConfigError
from inbatch.losses import GIST, MultipleNegativesRanking
from inbatch.sentence_transformers.in_batch import InBatchLoss

Directions = Sequence[Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]]
_SYMMETRIC = ("query_to_doc", "doc_to_query")


def similarity_of(function: Any) -> Literal["cosine", "dot"]:
    """The name of ``util.cos_sim`` or ``util.dot_score``.

    Raises:
        ConfigError: another function.
    """
    name = function if isinstance(function, str) else getattr(function, "__name__", str(function))
    known: dict[str, Literal["cosine", "dot"]] = {"cos_sim": "cosine", "dot_score": "dot"}
    if name not in known:
        raise ConfigError(
            "similarity_fct", "is not known", "give util.cos_sim or util.dot_score", value=name
        )
    return known[name]


class MultipleNegativesRankingLoss(InBatchLoss):
    """In-batch negatives; see `inbatch.losses.MultipleNegativesRanking`.

    Args:
        model: the SentenceTransformer that is trained.
        scale: 1 / temperature.
        similarity_fct: ``util.cos_sim`` or ``util.dot_score``; None for the first.
        gather_across_devices: contrast with the rows of all ranks.
        directions: which scores are contrasted.
        partition_mode: "joint", one softmax for all directions, or "per_direction".
        hardness_mode: which negatives hardness weighs, None for none.
        hardness_strength: how much.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Any = None,
        gather_across_devices: bool = False,
        directions: Directions = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
        hardness_mode: Any = None,
        hardness_strength: float = 0.0,
        **options: Any,
    ) -> None:
        similarity = "cosine" if similarity_fct is None else similarity_of(similarity_fct)
        loss = MultipleNegativesRanking(
            temperature=1 / scale,
            similarity=similarity,
            directions=tuple(directions),
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength if hardness_mode else 0.0,
        )
        options = {"keep_gib": None} | options
        super().__init__(model, loss, gather_across_devices=gather_across_devices, **options)
        self.scale = scale

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for the model card."""
        loss = self._objective
        assert isinstance(loss, MultipleNegativesRanking)
        return {
            "scale": self.scale,
            "similarity_fct": {"cosine": "cos_sim", "dot": "dot_score"}[loss.similarity],
            "gather_across_devices": self.gather_across_devices,
            "directions": list(loss.directions),
            "partition_mode": loss.partition_mode,
            "hardness_mode": loss.hardness_mode,
            "hardness_strength": loss.hardness_strength,
            **self.chunk_settings(),
        }


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """The same with gradient caching: batches of any size in the memory of a chunk.

    Args:
        model, scale, similarity_fct: see `MultipleNegativesRankingLoss`.
        mini_batch_size: most texts of a chunk.
        mini_batch_num_tokens: most tokens of a chunk.
        gather_across_devices, directions, partition_mode, hardness_mode, hardness_strength: see there.
        show_progress_bar: not used.
        options: ``keep_gib``, see `InBatchLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Any = None,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: Directions = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
        show_progress_bar: bool = False,
        hardness_mode: Any = None,
        hardness_strength: float = 0.0,
        **options: Any,
    ) -> None:
        chunks = {
            "mini_batch_size": mini_batch_size,
            "mini_batch_num_tokens": mini_batch_num_tokens,
        }
        super().__init__(
            *(model, scale, similarity_fct, gather_across_devices, directions, partition_mode),
            *(hardness_mode, hardness_strength),
            **{"keep_gib": "auto", **chunks, **options},
        )


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """In-batch negatives of queries and of documents, a softmax each.

    Args:
        model, scale, similarity_fct, gather_across_devices: see `MultipleNegativesRankingLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Any = None,
        gather_across_devices: bool = False,
        **options: Any,
    ) -> None:
        both: tuple[Any, Any] = (_SYMMETRIC, "per_direction")
        super().__init__(model, scale, similarity_fct, gather_across_devices, *both, **options)


class CachedMultipleNegativesSymmetricRankingLoss(CachedMultipleNegativesRankingLoss):
    """The same with gradient caching.

    Args:
        model, scale, similarity_fct: see `MultipleNegativesRankingLoss`.
        mini_batch_size, mini_batch_num_tokens, gather_across_devices, show_progress_bar, options: see
            `CachedMultipleNegativesRankingLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Any = None,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
        **options: Any,
    ) -> None:
        sizes = (mini_batch_size, mini_batch_num_tokens, gather_across_devices)
        both: tuple[Any, Any] = (_SYMMETRIC, "per_direction")
        super().__init__(model, scale, similarity_fct, *sizes, *both, **options)


class GISTEmbedLoss(InBatchLoss):
    """In-batch negatives without those that a guide takes for positives; see `inbatch.losses.GIST`.

    Args:
        model: the SentenceTransformer that is trained.
        guide: a frozen one; each text goes through it once, see `GuideStore`.
        temperature: divides scores.
        margin_strategy: "absolute" or "relative".
        margin: by which a score may be below the positive's and be left out all the same.
        contrast_anchors: queries are candidates of queries.
        contrast_positives: positives are candidates of positives.
        gather_across_devices: contrast with the rows of all ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        temperature: float = 0.01,
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
        **options: Any,
    ) -> None:
        loss = GIST(
            temperature=temperature,
            margin_strategy=margin_strategy,
            margin=margin,
            contrast_anchors=contrast_anchors,
            contrast_positives=contrast_positives,
        )
        options = {"keep_gib": None} | options
        gathers = gather_across_devices
        super().__init__(model, loss, guide=guide, gather_across_devices=gathers, **options)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for the model card."""
        loss = self._objective
        assert isinstance(loss, GIST)
        return {
            "guide": self.guide,
            "temperature": loss.temperature,
            "margin_strategy": loss.margin_strategy,
            "margin": loss.margin,
            "contrast_anchors": loss.contrast_anchors,
            "contrast_positives": loss.contrast_positives,
            "gather_across_devices": self.gather_across_devices,
            **self.chunk_settings(),
        }


class CachedGISTEmbedLoss(GISTEmbedLoss):
    """The same with gradient caching: batches of any size in the memory of a chunk.

    Args:
        model, guide, temperature: see `GISTEmbedLoss`.
        mini_batch_size: most texts of a chunk.
        mini_batch_num_tokens: most tokens of a chunk.
        show_progress_bar: not used.
        margin_strategy, margin, contrast_anchors, contrast_positives, gather_across_devices: see there.
        options: ``keep_gib``, see `InBatchLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            *(
                model,
                guide,
                temperature,
                margin_strategy,
                margin,
                contrast_anchors,
                contrast_positives,
            ),
            gather_across_devices,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            **{"keep_gib": "auto", **options},
        )
