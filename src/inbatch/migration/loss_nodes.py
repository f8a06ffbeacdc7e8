"""Nodes of losses, from the classes and parameters of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inbatch.migration.draft import Draft, number, plain, word
from inbatch.migration.facts import Call, Unknown

_LOSSES = "inbatch.losses."
Node = dict[str, Any]

#: Losses without a counterpart, and what comes nearest.
REFUSED = {
    "AdaptiveLayerLoss": "losses of inner layers; `Matryoshka` shortens embeddings alone",
    "Matryoshka2dLoss": "losses of inner layers; `Matryoshka` shortens embeddings alone",
    "SoftmaxLoss": "a classifier over pairs; `format=nli` makes triplets of such data for any ranking loss",
    "MegaBatchMarginLoss": "superseded by larger batches; `MultipleNegativesRanking` with `hardness_mode`",
    "DenoisingAutoEncoderLoss": "needs a decoder",
    "ContrastiveTensionLoss": "needs a second model",
    "ContrastiveTensionLossInBatchNegatives": "needs a second model",
}
# Parameters that change no value here.
_WITHOUT_EFFECT = {
    *("show_progress_bar", "gather_across_devices", "mini_batch_size", "mini_batch_num_tokens"),
    *("guide", "model", "loss"),
}


def node(draft: Draft, loss: Call) -> Node | None:
    """The node of a loss, None where there is no counterpart."""
    name = loss.name.removeprefix("Cached")
    if loss.name in REFUSED or name not in MAKERS:
        why = REFUSED.get(loss.name, "not a loss of sentence-transformers")
        draft.note(f"{loss.name}: {why}")
        return None
    target, make = MAKERS[name]
    named = {
        **dict(zip(POSITIONS.get(name, ()), loss.args[1:])),
        **loss.options,
    }  # behind the model
    options = {}
    for key, value in named.items():
        if isinstance(value, Unknown):
            draft.note(f"{loss.name}.{key}: {value.text} is only known where the script runs")
        elif key not in _WITHOUT_EFFECT:
            options[key] = value
    if name == "MatryoshkaLoss":
        inner = loss.get("loss", 1)
        options["loss"] = inner if isinstance(inner, Call) else Call(str(inner))
        if not isinstance(inner, Call):
            draft.note(
                f"parameters of {inner} inside of MatryoshkaLoss: not told, its defaults are taken"
            )
    made = {"_target_": _LOSSES + target}
    for key, value in make(draft, options).items():
        if value is not None:
            made[key] = plain(value)
    for key, value in options.items():  # what the maker has not taken
        draft.note(f"{loss.name}.{key}={value}: {target} has no such key")
    return made


Make = Callable[[Draft, dict[str, Any]], Mapping[str, Any]]


def _temperature(options: dict[str, Any], usual: float = 20.0) -> Any:
    return 1.0 / (number(options.pop("scale", usual)) or usual)


def _similarity(draft: Draft, options: dict[str, Any], usual: str = "cosine") -> Any:
    given = options.pop("similarity_fct", None)
    if given is None:
        return usual
    name = word(given.name if isinstance(given, Call) else given).removeprefix("pairwise_")
    known = {"cos_sim": "cosine", "cosine": "cosine", "dot_score": "dot", "dot": "dot"}
    if name not in known:
        draft.note(f"similarity_fct={name}: not offered in this loss; {usual} takes its place")
    return known.get(name, usual)


def _distance(draft: Draft, options: dict[str, Any], usual: str) -> str:
    given = word(options.pop("distance_metric", usual))
    for name in ("cosine", "euclidean", "manhattan"):
        if name in given:
            return name
    draft.note(f"distance_metric={given}: not offered; {usual} takes its place")
    return usual


def _ranking(draft: Draft, options: dict[str, Any]) -> Node:
    made = {"temperature": _temperature(options), "similarity": _similarity(draft, options)}
    if options.get("hardness_mode") is None:
        options.pop("hardness_mode", None)
        options.pop("hardness_strength", None)
    names = ("directions", "partition_mode", "hardness_mode", "hardness_strength")
    return made | {name: options.pop(name) for name in names if name in options}


def _symmetric(draft: Draft, options: dict[str, Any]) -> Node:
    both = {"directions": ["query_to_doc", "doc_to_query"], "partition_mode": "per_direction"}
    return _ranking(draft, options) | both


def _gist(draft: Draft, options: dict[str, Any]) -> Node:
    names = ("margin_strategy", "margin", "contrast_anchors", "contrast_positives")
    made = {"temperature": options.pop("temperature", 0.01)}
    return made | {name: options.pop(name) for name in names if name in options}


def _pairs(usual: str, margin: float) -> Make:
    def make(draft: Draft, options: dict[str, Any]) -> Node:
        made = {"distance": _distance(draft, options, usual)}
        made["margin"] = options.pop("triplet_margin", options.pop("margin", margin))
        if "size_average" in options:
            made["size_average"] = options.pop("size_average")
        return made

    return make


def _soft_margin(draft: Draft, options: dict[str, Any]) -> Node:
    return {"distance": _distance(draft, options, "euclidean")}


def _cosine_similarity(draft: Draft, options: dict[str, Any]) -> Node:
    for key, usual in (("loss_fct", "mseloss"), ("cos_score_transformation", "identity")):
        given = options.pop(key, None)
        name = word(given.name if isinstance(given, Call) else given or usual)
        if name != usual:
            draft.note(
                f"CosineSimilarityLoss.{key}={name}: not offered; squared errors of the cosine"
            )
    return {}


def _cosent(draft: Draft, options: dict[str, Any]) -> Node:
    given = word(options.pop("similarity_fct", "") or "")
    if given not in ("", "pairwise_cos_sim", "pairwise_angle_sim"):
        draft.note(f"similarity_fct={given}: not offered in this loss; its own takes its place")
    return {"temperature": _temperature(options)}


def _matryoshka(draft: Draft, options: dict[str, Any]) -> Node:
    dims, weights = options.pop("matryoshka_dims", None), options.pop("matryoshka_weights", None)
    if options.pop("n_dims_per_step", -1) not in (-1, None):
        draft.note("MatryoshkaLoss.n_dims_per_step: all dimensions are in each step here")
    if weights is not None and isinstance(weights, list | tuple) and set(weights) == {1}:
        weights = None
    inner = options.pop("loss")
    return {"loss": node(draft, inner) or "???", "dims": dims, "weights": weights}


def _teacher_embeddings(draft: Draft, options: dict[str, Any]) -> Node:
    made: Node = {"projection": True} if options.pop("projection_dim", None) else {}
    metric = word(options.pop("distance_metric", ""))
    if metric == "mse":
        made["_target_"] = f"{_LOSSES}EmbeddingMSE"
    elif metric == "l2":
        draft.note("EmbedDistillLoss.distance_metric=l2: not offered; cosine takes its place")
    return made


def _scores(draft: Draft, options: dict[str, Any]) -> Node:
    made: Node = {"similarity": _similarity(draft, options, "dot")}
    both = options.pop("temperature", None)
    for name in ("student_temperature", "teacher_temperature"):
        value = options.pop(name, both)
        if value is not None:
            made[name] = value
    return made


def _orthogonal(draft: Draft, options: dict[str, Any]) -> Node:
    names = ("mean_weight", "second_moment_weight", "aggregation")
    made = {"similarity": _similarity(draft, options)}
    return made | {name: options.pop(name) for name in names if name in options}


#: By the names there without "Cached": the class here, and what makes its keys.
MAKERS: dict[str, tuple[str, Make]] = {
    "MultipleNegativesRankingLoss": ("MultipleNegativesRanking", _ranking),
    "MultipleNegativesSymmetricRankingLoss": ("MultipleNegativesRanking", _symmetric),
    "GISTEmbedLoss": ("GIST", _gist),
    "ContrastiveLoss": ("Contrastive", _pairs("cosine", 0.5)),
    "OnlineContrastiveLoss": ("OnlineContrastive", _pairs("cosine", 0.5)),
    "TripletLoss": ("Triplet", _pairs("euclidean", 5)),
    "BatchAllTripletLoss": ("BatchAllTriplet", _pairs("euclidean", 5)),
    "BatchHardTripletLoss": ("BatchHardTriplet", _pairs("euclidean", 5)),
    "BatchSemiHardTripletLoss": ("BatchSemiHardTriplet", _pairs("euclidean", 5)),
    "BatchHardSoftMarginTripletLoss": ("BatchHardSoftMarginTriplet", _soft_margin),
    "CosineSimilarityLoss": ("CosineSimilarity", _cosine_similarity),
    "CoSENTLoss": ("CoSENT", _cosent),
    "AnglELoss": ("AnglE", _cosent),
    "MatryoshkaLoss": ("Matryoshka", _matryoshka),
    "MSELoss": ("EmbeddingMSE", _teacher_embeddings),
    "EmbedDistillLoss": ("EmbeddingCosine", _teacher_embeddings),
    "MarginMSELoss": ("MarginMSE", _scores),
    "DistillKLDivLoss": ("DistillKL", _scores),
    "GlobalOrthogonalRegularizationLoss": ("GlobalOrthogonalRegularization", _orthogonal),
}
#: Those that have a cached form there.
CACHED = (
    *("MultipleNegativesRankingLoss", "MultipleNegativesSymmetricRankingLoss", "GISTEmbedLoss"),
)
#: Arguments by place, behind the model.
POSITIONS: dict[str, tuple[str, ...]] = {
    "MultipleNegativesRankingLoss": ("scale", "similarity_fct"),
    "MultipleNegativesSymmetricRankingLoss": ("scale", "similarity_fct"),
    "GISTEmbedLoss": ("guide", "temperature"),
    "ContrastiveLoss": ("distance_metric", "margin", "size_average"),
    "OnlineContrastiveLoss": ("distance_metric", "margin"),
    "TripletLoss": ("distance_metric", "triplet_margin"),
    "BatchAllTripletLoss": ("distance_metric", "margin"),
    "BatchHardTripletLoss": ("distance_metric", "margin"),
    "BatchSemiHardTripletLoss": ("distance_metric", "margin"),
    "BatchHardSoftMarginTripletLoss": ("distance_metric",),
    "CosineSimilarityLoss": ("loss_fct", "cos_score_transformation"),
    "CoSENTLoss": ("scale", "similarity_fct"),
    "AnglELoss": ("scale",),
    "MatryoshkaLoss": ("loss", "matryoshka_dims", "matryoshka_weights", "n_dims_per_step"),
    "MarginMSELoss": ("similarity_fct",),
    "DistillKLDivLoss": ("similarity_fct", "temperature"),
}
