"""Cards of each version, edited ones, and ones without line breaks, as experiments."""

# ruff: noqa: E501 - cards have long lines

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.sentence_transformer.deprecated_model_card_templates import (
    ModelCardTemplate,
)

from helpers.imported import at, body, of_card, settings
from inbatch.errors import ConfigError
from inbatch.migration.card import read_card

HYPERPARAMETERS = {
    "per_device_train_batch_size": 32,
    "num_train_epochs": 2,
    "learning_rate": "2e-05",
    "weight_decay": 0.01,
    "warmup_ratio": 0.1,
    "bf16": True,
    "batch_sampler": "no_duplicates",
    "lr_scheduler_type": "cosine",
    "gradient_accumulation_steps": 2,
    "dataloader_pin_memory": False,
    "label_smoothing_factor": 0.1,
    "per_device_eval_batch_size": 64,
}
ARCHITECTURES = {
    "3": """(0): Transformer({'max_seq_length': 256, 'do_lower_case': False}) with Transformer model: BertModel
  (1): Pooling({'word_embedding_dimension': 384, 'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': False, \
'pooling_mode_max_tokens': False, 'include_prompt': False})
  (2): Normalize()""",
    "5": """(0): Transformer({'max_seq_length': 256, 'do_lower_case': False, 'architecture': 'BertModel'})
  (1): Pooling({'word_embedding_dimension': 384, 'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': False, \
'include_prompt': False})
  (2): Normalize()""",
    "6": """(0): Transformer({'transformer_task': 'feature-extraction', 'modality_config': {'text': {'method': \
'forward', 'method_output_name': 'last_hidden_state'}}, 'module_output_name': 'token_embeddings', 'architecture': 'BertModel'})
  (1): Pooling({'embedding_dimension': 384, 'pooling_mode': 'cls', 'include_prompt': False})
  (2): Normalize({'module_input_name': 'sentence_embedding', 'module_output_name': 'sentence_embedding'})""",
}
LOSS = """* Loss: [<code>CachedGISTEmbedLoss</code>](https://sbert.net/docs/losses.html#cachedgistembedloss) with these parameters:
  ```json
  {
      "guide": "SentenceTransformer('sentence-transformers/all-MiniLM-L6-v2', trust_remote_code=True)",
      "temperature": 0.02,
      "mini_batch_size": 16,
      "margin_strategy": "relative",
      "margin": 0.05
  }
  ```"""


def card(version: str = "3", loss: str = LOSS, **more: Any) -> str:
    """A card as the template of a version writes it, shortened."""
    listed = "\n".join(f"- `{name}`: {value}" for name, value in (HYPERPARAMETERS | more).items())
    return f"""---
language:
- ca
- es
license: apache-2.0
tags:
- sentence-transformers
- dataset_size:1000
- loss:CachedGISTEmbedLoss
base_model: acme/encoder-base
widget:
- source_sentence: 'a - `learning_rate`: no, a text'
---

# Offers

### Model Description
- **Model Type:** Sentence Transformer
- **Base model:** [acme/encoder-base](https://huggingface.co/acme/encoder-base) <!-- at revision 0123456789abcdef0123456789abcdef01234567 -->
- **Maximum Sequence Length:** 256 tokens
- **Similarity Function:** Dot Product
<!-- - **Training Dataset:** Unknown -->

### Full Model Architecture

```
SentenceTransformer(
  {ARCHITECTURES[version]}
)
```

## Usage

### Direct Usage (Sentence Transformers)

## Evaluation

### Metrics

#### Triplet

* Dataset: `offers-dev`
* Evaluated with [<code>TripletEvaluator</code>](https://sbert.net/evaluation.html#TripletEvaluator)

| Metric              | Value   |
|:--------------------|:--------|
| **cosine_accuracy** | **0.9** |

## Training Details

### Training Dataset

#### offers

* Dataset: [offers](https://huggingface.co/datasets/acme/offers) at [fedcba9](https://huggingface.co/datasets/acme/offers/tree/fedcba9876543210)
* Size: 1,000 training samples
* Columns: <code>title</code>, <code>match</code>, and <code>other</code>
* Samples:
  | title              | match              | other           |
  |:-------------------|:-------------------|:----------------|
  | <code>{{'a': (</code> | <code>it's "b"</code> | <code>c | d</code> |
{loss}

### Training Hyperparameters
#### Non-Default Hyperparameters

{listed}

#### All Hyperparameters
<details><summary>Click to expand</summary>

{listed}
- `seed`: 42
- `fsdp_config`: {{'min_num_params': 0, 'xla': False}}
- `max_steps`: -1

</details>

### Training Logs
| Epoch  | Step | Training Loss | offers-dev_cosine_accuracy |
|:------:|:----:|:-------------:|:--------------------------:|
| 0      | 0    | -             | 0.5                        |
| 0.3    | 10   | 1.5           | -                          |
| 0.5    | 15   | -             | 0.7                        |
| **1.0**| **30** | **1.1**     | **0.8**                    |

### Framework Versions
- Python: 3.11.7
"""


EXPECTED: dict[str, Any] = {
    "encoder.model": "acme/encoder-base",
    "encoder.revision": "0123456789abcdef0123456789abcdef01234567",
    "encoder.max_length": 256,
    "encoder.pooling": "cls",
    "encoder.include_prompt": False,
    "encoder.normalize": True,
    "encoder.similarity": "dot",
    "loss._target_": "inbatch.losses.GIST",
    "loss.temperature": 0.02,
    "loss.margin": 0.05,
    "loss.margin_strategy": "relative",
    "guide.model": "sentence-transformers/all-MiniLM-L6-v2",
    "guide.trust_remote_code": False,
    "gradcache.chunk_size": 16,
    "data.train.offers.hub": "acme/offers",
    "data.train.offers.revision": "fedcba9876543210",
    "data.train.offers.columns": {"query": "title", "positive": "match", "negatives": ["other"]},
    "global_batch_size": 32,
    "accumulate": 2,
    "trainer.max_epochs": 2,
    "optimizer.lr": 2e-5,
    "optimizer.weight_decay": 0.01,
    "schedule._target_": "inbatch.optim.Cosine",
    "schedule.warmup_ratio": 0.1,
    "precision": "bf16",
    "sampler._target_": "inbatch.data.plan.samplers.NoDuplicates",
    "evaluation.every_steps": 15,
    "evaluation.evaluators.eval.name": "offers-dev",
    "evaluation.evaluators.eval._target_": "inbatch.evaluation.TripletEvaluator",
    "card.language": ["ca", "es"],
    "card.license": "apache-2.0",
}


@pytest.mark.parametrize("version", ARCHITECTURES)
@pytest.mark.parametrize("how", ["lines", "one line", "two lines", "windows"])
def test_a_card_of_each_version(tmp_path: Path, version: str, how: str) -> None:
    text = card(version)
    text = {
        "lines": text,
        "one line": " ".join(text.split()),
        "two lines": " ".join(text.split()).replace(" #### All", "\n#### All"),
        "windows": "\ufeff" + text.replace("\n", "\r\n"),
    }[how]
    expected = dict(EXPECTED)
    if how in ("one line", "two lines"):
        expected["card.language"] = ["ca"]  # the first, where the header is no YAML
    experiment = of_card(text)
    found = settings(experiment, tmp_path)
    assert {key: at(found, key) for key in expected} == expected
    assert [note.partition(":")[0] for note in experiment.notes] == [
        "guide",
        "label_smoothing_factor=0.1",
        "acme/offers",
    ]
    assert experiment.idle == ("dataloader_pin_memory=False", "per_device_eval_batch_size=64")
    assert experiment.command.endswith("experiment=imported data.eval=FILE")


def loss_text(name: str, parameters: str) -> str:
    return f"* Loss: [<code>{name}</code>](https://sbert.net) with these parameters:\n  ```json\n  {parameters}\n  ```"


LOSSES = {
    "MultipleNegativesRankingLoss": (
        '{"scale": 50.0, "similarity_fct": "dot_score", "gather_across_devices": false}',
        {"_target_": "MultipleNegativesRanking", "temperature": 0.02, "similarity": "dot"},
    ),
    "MultipleNegativesSymmetricRankingLoss": (
        "{'scale': 20.0, 'similarity_fct': 'cos_sim'}",
        {"_target_": "MultipleNegativesRanking", "partition_mode": "per_direction"},
    ),
    "OnlineContrastiveLoss": (
        "{'distance_metric': 'SiameseDistanceMetric.EUCLIDEAN', 'margin': 0.7}",
        {"_target_": "OnlineContrastive", "distance": "euclidean", "margin": 0.7},
    ),
    "TripletLoss": (
        '{"distance_metric": "TripletDistanceMetric.COSINE", "triplet_margin": 0.3}',
        {"_target_": "Triplet", "distance": "cosine", "margin": 0.3},
    ),
    "BatchHardTripletLoss": (
        '{"distance_metric": "eucledian_distance", "margin": 2}',
        {"_target_": "BatchHardTriplet", "margin": 2},
    ),
    "CosineSimilarityLoss": (
        '{"loss_fct": "torch.nn.modules.loss.MSELoss"}',
        {"_target_": "CosineSimilarity"},
    ),
    "CoSENTLoss": (
        '{"scale": 10.0, "similarity_fct": "pairwise_cos_sim"}',
        {"_target_": "CoSENT", "temperature": 0.1},
    ),
    "MatryoshkaLoss": (
        '{"loss": "MultipleNegativesRankingLoss", "matryoshka_dims": [64, 32], "matryoshka_weights": [1, 0.5], "n_dims_per_step": -1}',
        {"_target_": "Matryoshka", "dims": [64, 32], "weights": [1, 0.5]},
    ),
    "EmbedDistillLoss": (
        '{"distance_metric": "mse", "projection_dim": 64}',
        {"_target_": "EmbeddingMSE", "projection": True},
    ),
    "DistillKLDivLoss": (
        '{"similarity_fct": "pairwise_dot_score", "temperature": 2.0}',
        {"_target_": "DistillKL", "student_temperature": 2.0, "similarity": "dot"},
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_parameters_of_losses(tmp_path: Path, name: str) -> None:
    parameters, expected = LOSSES[name]
    found = settings(of_card(card(loss=loss_text(name, parameters))), tmp_path)["loss"]
    found["_target_"] = found["_target_"].removeprefix("inbatch.losses.")
    assert {key: found[key] for key in expected} == expected


def test_a_loss_without_a_counterpart_has_to_be_chosen(tmp_path: Path) -> None:
    experiment = of_card(card(loss=loss_text("SoftmaxLoss", '{"num_labels": 3}')))
    assert body(experiment)["loss"] == "???"
    assert any(note.startswith("SoftmaxLoss: ") for note in experiment.notes)
    assert "loss=LOSS" in experiment.command
    assert settings(experiment, tmp_path)["loss"]["_target_"] == "inbatch.losses.CoSENT"


def test_several_data_sets_with_losses_of_their_own(tmp_path: Path) -> None:
    second = "\n#### scored/pairs\n\n* Dataset: scored\n* Size: 9 training samples\n* Columns: <code>a</code>, <code>b</code>, and <code>score</code>\n"
    text = card(multi_dataset_batch_sampler="round_robin").replace(
        "### Training Hyperparameters",
        second + loss_text("CoSENTLoss", "{}") + "\n\n### Training Hyperparameters",
    )
    experiment = of_card(text)
    found = settings(experiment, tmp_path)
    assert found["sampler"]["_target_"] == "inbatch.data.plan.samplers.RoundRobin"
    assert found["sampler"]["within"]["_target_"].endswith("NoDuplicates")
    assert {name: node["_target_"] for name, node in found["loss"].items()} == {
        "offers": "inbatch.losses.GIST",
        "pairs": "inbatch.losses.CoSENT",
    }
    roles = {"query": "a", "positive": "b", "label": "score"}
    assert found["data"]["train"]["pairs"]["columns"] == roles
    assert "data.train.pairs.path=FILE" in experiment.command


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_steps": 70}, {"trainer.max_steps": 70, "trainer.max_epochs": -1}),
        ({"num_train_epochs": 0.5}, {"trainer.max_steps": 8, "trainer.max_epochs": 1}),
        ({"warmup_steps": 0.2, "warmup_ratio": "None"}, {"schedule.warmup_ratio": 0.2}),
        ({"warmup_steps": 50}, {"schedule.warmup_steps": 50, "schedule.warmup_ratio": 0.0}),
        ({"optim": "adafactor"}, {"optimizer._target_": "transformers.optimization.Adafactor"}),
        ({"optim": "sgd", "optim_args": "momentum=0.9"}, {"optimizer.momentum": 0.9}),
        ({"adam_beta2": 0.98}, {"optimizer.betas": [0.9, 0.98]}),
        ({"bf16": "False"}, {"precision": "fp32"}),
        ({"lr_scheduler_type": "constant"}, {"schedule._target_": "inbatch.optim.Constant"}),
        (
            {"lr_scheduler_type": "SchedulerType.POLYNOMIAL", "lr_scheduler_kwargs": "{'power': 2.0, 'lr_end': 2e-6}"},
            {"schedule.power": 2.0, "schedule.min_lr_ratio": 0.1},
        ),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": "{'min_lr': 1e-06}"},
            {"schedule.min_lr_ratio": 0.05},
        ),
        ({"fsdp": "['full_shard', 'auto_wrap']"}, {"strategy._target_": "inbatch.strategies.FSDP"}),
        ({"gradient_checkpointing": True}, {"encoder.gradient_checkpointing": True}),
        ({"max_grad_norm": 0}, {"clip_norm": None}),
        ({"batch_sampler": "group_by_label"}, {"sampler._target_": "inbatch.data.plan.samplers.GroupByLabel"}),
        ({"prompts": "{'title': 'query: '}"}, {"data.train.offers.prompts": {"title": "query: "}}),
        ({"prompts": "q: "}, {"data.train.offers.prompts": dict.fromkeys(("title", "match", "other"), "q:")}),
    ],
)  # fmt: skip
def test_arguments(tmp_path: Path, given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = settings(of_card(card(**given)), tmp_path)
    for key, value in expected.items():
        is_number = isinstance(value, float)
        assert at(found, key) == (pytest.approx(value) if is_number else value), key


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"optim": "adamw_bnb_8bit"}, "optim=adamw_bnb_8bit: not offered"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type=reduce_lr_on_plateau"),
        ({"some_new_argument": 7}, "some_new_argument=7: not an argument that is known here"),
        ({"neftune_noise_alpha": 5}, "neftune_noise_alpha=5: "),
        ({"router_mapping": "{'title': 'query'}"}, "router_mapping="),
    ],
)
def test_what_is_not_carried_over_is_named(given: dict[str, Any], note: str) -> None:
    experiment = of_card(card(**given))
    assert any(found.startswith(note) for found in experiment.notes)
    assert f"#   {note}" in experiment.yaml


def fit_card(edited: bool) -> str:
    """A card of 2.x, by the template that is still shipped."""
    parts = [
        "**DataLoader**:\n\n`sentence_transformers.datasets.NoDuplicatesDataLoader.NoDuplicatesDataLoader` of length 40 with parameters:\n```\n{'batch_size': 64}\n```",
        "**Loss**:\n\n`sentence_transformers.losses.MultipleNegativesRankingLoss.MultipleNegativesRankingLoss` with parameters:\n  ```\n  {'scale': 25.0, 'similarity_fct': 'cos_sim'}\n  ```",
    ]
    fit = """{
    "epochs": 3,
    "evaluation_steps": 500,
    "evaluator": "sentence_transformers.evaluation.EmbeddingSimilarityEvaluator.EmbeddingSimilarityEvaluator",
    "max_grad_norm": 0.5,
    "optimizer_class": "<class 'torch.optim.adamw.AdamW'>",
    "optimizer_params": {
        "lr": 3e-05,
        "eps": 1e-06
    },
    "scheduler": "warmupcosine",
    "steps_per_epoch": null,
    "warmup_steps": 12,
    "weight_decay": 0.01
}"""
    template = ModelCardTemplate.__TRAINING_SECTION__
    training = template.replace("{LOSS_FUNCTIONS}", "\n\n".join(parts)).replace(
        "{FIT_PARAMETERS}", fit
    )
    text = ModelCardTemplate.__MODEL_CARD__.replace("{TRAINING_SECTION}", training)
    text = text.replace("{FULL_MODEL_STR}", f"SentenceTransformer(\n  {ARCHITECTURES['3']}\n)")
    if edited:
        text = text.replace("**Loss**:", "**Loss:**").replace(
            "fit()-Method:\n```", "**fit()-Method:**\n\n```python"
        )
        text = text.replace("**DataLoader**:", "**DataLoader:**").replace(
            "with parameters:\n  ```", "with parameters:\n\n```python"
        )
    return text  # fmt: skip


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_a_card_before_version_3(tmp_path: Path, edited: bool, joined: bool) -> None:
    text = fit_card(edited)
    experiment = of_card(" ".join(text.split()) if joined else text)
    found = settings(experiment, tmp_path)
    expected = {
        "loss.temperature": 0.04,
        "global_batch_size": 64,
        "sampler._target_": "inbatch.data.plan.samplers.NoDuplicates",
        "trainer.max_epochs": 3,
        "optimizer.lr": 3e-5,
        "optimizer.eps": 1e-6,
        "optimizer.weight_decay": 0.01,
        "clip_norm": 0.5,
        "schedule._target_": "inbatch.optim.Cosine",
        "schedule.warmup_steps": 12,
        "evaluation.every_steps": 500,
        "evaluation.evaluators.eval._target_": "inbatch.evaluation.EmbeddingSimilarityEvaluator",
        "precision": "fp32",
        "encoder.pooling": "cls",
    }
    assert {key: at(found, key) for key in expected} == expected
    assert experiment.needs[0].startswith(
        "encoder.model: the model that training starts from: BertModel of 384"
    )


def test_a_card_of_the_trainer_of_transformers(tmp_path: Path) -> None:
    text = """### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 2e-05
- train_batch_size: 16
- eval_batch_size: 8
- seed: 7
- gradient_accumulation_steps: 4
- total_train_batch_size: 64
- optimizer: Use OptimizerNames.ADAMW_TORCH with betas=(0.9,0.98) and epsilon=1e-06 and optimizer_args=No additional optimizer arguments
- lr_scheduler_type: linear
- lr_scheduler_warmup_ratio: 0.05
- num_epochs: 4
- mixed_precision_training: Native AMP
"""
    found = settings(of_card(text), tmp_path, "loss=cosent")
    expected = {
        "global_batch_size": 16,
        "accumulate": 4,
        "seed": 7,
        "optimizer.betas": [0.9, 0.98],
        "optimizer.eps": 1e-6,
        "schedule.warmup_ratio": 0.05,
        "trainer.max_epochs": 4,
        "precision": "fp16",
    }
    assert {key: at(found, key) for key in expected} == expected


def test_evaluators_at_several_dimensions_share_a_set(tmp_path: Path) -> None:
    block = """#### Information Retrieval

* Dataset: `dim_{0}`
* Evaluated with [<code>InformationRetrievalEvaluator</code>](https://sbert.net) with these parameters:
  ```json
  {{
      "truncate_dim": {0}
  }}
  ```

| Metric             | Value   |
|:-------------------|:--------|
| cosine_accuracy@1  | 0.7     |
| **cosine_ndcg@10** | **0.8** |

"""
    text = card()
    start, end = text.index("#### Triplet"), text.index("## Training Details")
    text = text[:start] + block.format(64) + block.format(32) + text[end:]
    evaluators = body(of_card(text))["evaluation"]["evaluators"]
    assert [(e["name"], e["truncate_dim"], e["path"]) for e in evaluators.values()] == [
        ("dim_64", 64, "${data.eval}"),
        ("dim_32", 32, "${data.eval}"),
    ]


@pytest.mark.parametrize("version", ["3", "5"])
def test_an_architecture_of_peft_has_an_adapter(version: str) -> None:
    text = card(version).replace("BertModel", "PeftModelForFeatureExtraction")
    experiment = of_card(text)
    assert body(experiment)["encoder"]["adapter"] == "lora"
    assert any(note.startswith("LoRA: its rank") for note in experiment.notes)


def test_a_static_model_is_read_as_such() -> None:
    static = "(0): StaticEmbedding(\n    (embedding): EmbeddingBag(30522, 1024, mode='mean')\n  )"
    text = card().replace(ARCHITECTURES["3"], static)
    assert body(of_card(text))["encoder"] == {
        "model": "acme/encoder-base",
        "revision": "0123456789abcdef0123456789abcdef01234567",
    }
    unnamed = re.sub(r"base_model: .*|- \*\*Base model.*", "", text)
    need = next(need for need in of_card(unnamed).needs if need.startswith("encoder.model"))
    assert "encoder=static" in need


@pytest.mark.parametrize("module", ["LSTM", "Router", "WordEmbeddings", "CLIPModel"])
def test_a_module_that_is_not_here_is_named(module: str) -> None:
    text = card().replace("(2): Normalize()", f"(2): {module}({{'in': 3}})\n  (3): Normalize()")
    assert any(note.startswith(f"module {module}: ") for note in of_card(text).notes)


def test_what_is_no_card_of_a_bi_encoder() -> None:
    with pytest.raises(ConfigError, match="cross-encoder"):
        read_card("# CrossEncoder based on x\n- **Model Type:** Cross Encoder\n")
    assert of_card("# Hello\n\nNothing here.").notes[-1].startswith("nothing of a training")


def test_losses_of_the_installed_version_say_what_is_read(tiny_bert: Path) -> None:
    """The names of parameters are those of its `get_config_dict`."""
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    made = {
        "gist": losses.CachedGISTEmbedLoss(model, model, temperature=0.03, mini_batch_size=8),
        "ranking": losses.CachedMultipleNegativesRankingLoss(model, scale=40, hardness_mode="hard_negatives", hardness_strength=3.0),
        "triplet": losses.TripletLoss(model, triplet_margin=2),
        "spread": losses.GlobalOrthogonalRegularizationLoss(model, mean_weight=0.5),
    }  # fmt: skip
    found = {}
    for name, loss in made.items():
        parameters = {k: v for k, v in loss.get_config_dict().items() if k != "guide"}
        experiment = of_card(card(loss=loss_text(type(loss).__name__, str(parameters))))
        found[name] = body(experiment)["loss"]
        assert not [note for note in experiment.notes if type(loss).__name__ in note]
    assert found["gist"]["temperature"] == 0.03
    assert (found["ranking"]["temperature"], found["ranking"]["hardness_strength"]) == (0.025, 3.0)
    assert found["triplet"] == {"distance": "euclidean", "margin": 2}
    assert found["spread"]["mean_weight"] == 0.5
