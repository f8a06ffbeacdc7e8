"""Training scripts as experiments, read and never run."""

# ruff: noqa: E501 - scripts have long lines

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from helpers.imported import at, body, of_file, settings
from inbatch.errors import ConfigError
from inbatch.migration import read_source
from inbatch.migration.facts import Unknown
from inbatch.migration.values import Values

HEAD = """
import argparse, math, torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses, models
from sentence_transformers import SentenceTransformerTrainingArguments, util
from sentence_transformers.evaluation import *
from sentence_transformers.training_args import BatchSamplers, MultiDatasetBatchSamplers
raise SystemExit("this must not run")
"""
TRAINER = """
class CFG:
    epochs = 2
    rows: int = 128

parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", "-l", type=float, default=2e-5)
parser.add_argument("--scale", default=30)
flags = parser.parse_args()

NAME = "microsoft/mpnet-base"

def make(name, length=200):
    word = models.Transformer(name)
    pool = models.Pooling(word.get_word_embedding_dimension(), pooling_mode="cls")
    dense = models.Dense(in_features=pool.get_sentence_embedding_dimension(), out_features=256, activation_function=torch.nn.Tanh())
    model = SentenceTransformer(modules=[word, pool, dense])
    model.max_seq_length = length
    return model

name = NAME
model = make(NAME)
nli = load_dataset("sentence-transformers/all-nli", "triplet", split="train")
nli = nli.select(range(1000))
nli = nli.shuffle(seed=1)
sts = load_dataset("sentence-transformers/stsb")["train"]
inner = losses.MultipleNegativesRankingLoss(model, scale=flags.scale, similarity_fct=util.dot_score)
loss = {"nli": losses.MatryoshkaLoss(model, inner, [768, 256]), "sts": losses.CoSENTLoss(model)}
common = dict(warmup_ratio=0.05, seed=7)
args = SentenceTransformerTrainingArguments(
    output_dir="x",
    num_train_epochs=CFG.epochs,
    per_device_train_batch_size=CFG.rows * 2,
    learning_rate=flags.learning_rate,
    bf16=True if NAME else False,
    fp16=torch.cuda.is_available(),
    batch_sampler=BatchSamplers.NO_DUPLICATES,
    multi_dataset_batch_sampler=MultiDatasetBatchSamplers.ROUND_ROBIN,
    eval_strategy="steps",
    eval_steps=50,
    save_strategy="steps",
    save_steps=100,
    save_total_limit=3,
    logging_steps=5,
    report_to=["wandb"],
    metric_for_best_model="eval_nli-dev_cosine_accuracy",
    gradient_accumulation_steps=len(nli) // 10,
    **common,
)
evaluator = SequentialEvaluator([TripletEvaluator(a, b, c, name="nli-dev"), NanoBEIREvaluator()])
trainer = SentenceTransformerTrainer(
    model=model, args=args, train_dataset={"nli": nli, "sts": sts}, loss=loss, evaluator=evaluator
)
trainer.train()
"""
EXPECTED: dict[str, Any] = {
    "encoder.model": "microsoft/mpnet-base",
    "encoder.max_length": 200,
    "encoder.pooling": "cls",
    "encoder.dense": {"out_features": 256, "activation": "Tanh", "bias": True},
    "loss.nli.loss.temperature": 1 / 30,
    "loss.nli.loss.similarity": "dot",
    "loss.nli.dims": [768, 256],
    "loss.sts._target_": "inbatch.losses.CoSENT",
    "data.train.nli.hub": "sentence-transformers/all-nli",
    "data.train.nli.subset": "triplet",
    "data.train.sts.hub": "sentence-transformers/stsb",
    "data.eval.nano": "NanoBEIR",
    "global_batch_size": 256,
    "trainer.max_epochs": 2,
    "trainer.log_every_steps": 5,
    "optimizer.lr": 2e-5,
    "schedule.warmup_ratio": 0.05,
    "seed": 7,
    "precision": "bf16",
    "sampler._target_": "inbatch.data.plan.samplers.RoundRobin",
    "evaluation.every_steps": 50,
    "evaluation.best_metric": "nli-dev_cosine_accuracy",
    "checkpoint.every_n_steps": 100,
    "checkpoint.keep": 2,
}


def write(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def test_a_script_of_the_trainer(tmp_path: Path) -> None:
    experiment = of_file(write(tmp_path, HEAD + TRAINER))
    found = body(experiment)
    expected = dict(EXPECTED)
    del expected["sampler._target_"]
    assert {key: at(found, key) for key in expected} == expected
    assert "override /sampler: round_robin" in experiment.yaml
    assert "override /logger: wandb" in experiment.yaml
    unknown = [note for note in experiment.notes if "only known where the script runs" in note]
    assert [note.partition(":")[0] for note in unknown] == ["fp16", "gradient_accumulation_steps"]


FIT = """
model = SentenceTransformer("all-MiniLM-L6-v2")
epochs = 4
loader = DataLoader(examples, shuffle=True, batch_size=24)
other = DataLoader(more, shuffle=True, batch_size=24)
loss = losses.MultipleNegativesRankingLoss(model=model)
model.fit(
    train_objectives=[(loader, loss), (other, losses.CosineSimilarityLoss(model))],
    epochs=epochs,
    warmup_steps={warmup},
    optimizer_params={{"lr": 1e-5}},
    use_amp=True,
    evaluator=EmbeddingSimilarityEvaluator(x, y, z, name="dev"),
    evaluation_steps=200,
)
"""


@pytest.mark.parametrize(
    "warmup",
    [
        "math.ceil(len(loader) * epochs * 0.1)",
        "int(len(loader) * epochs * 0.1)",
        "int(0.1 * epochs * len(examples) / 24)",
    ],
)
def test_a_script_of_fit(tmp_path: Path, warmup: str) -> None:
    experiment = of_file(write(tmp_path, HEAD + FIT.format(warmup=warmup)))
    found = settings(experiment, tmp_path)
    expected = {
        "encoder.model": "all-MiniLM-L6-v2",
        "global_batch_size": 24,
        "trainer.max_epochs": 4,
        "optimizer.lr": 1e-5,
        "optimizer.weight_decay": 0.01,
        "schedule.warmup_ratio": 0.1 if "/ 24" not in warmup else 0.0,
        "precision": "fp16",
        "evaluation.every_steps": 200,
        "evaluation.evaluators.eval.name": "dev",
        "sampler._target_": "inbatch.data.plan.samplers.RoundRobin",
    }
    assert {key: at(found, key) for key in expected} == pytest.approx(expected)
    assert [node["_target_"] for node in found["loss"].values()] == [
        "inbatch.losses.MultipleNegativesRanking",
        "inbatch.losses.CosineSimilarity",
    ]
    told = [note for note in experiment.notes if note.startswith("warmup_steps")]
    assert bool(told) == ("/ 24" in warmup)


def test_lora(tmp_path: Path) -> None:
    text = HEAD + FIT.format(warmup=10)
    text += "\nmodel.add_adapter(LoraConfig(r=64, lora_alpha=128, lora_dropout=0.1, target_modules=['q', 'v'], use_dora=True, task_type='FEATURE_EXTRACTION'))\n"
    experiment = of_file(write(tmp_path, text))
    adapter = {"rank": 64, "alpha": 128, "dropout": 0.1, "targets": ["q", "v"]}
    assert body(experiment)["encoder"]["adapter"] == adapter
    assert "LoraConfig.use_dora=True: not offered" in experiment.notes


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a", 3), ("a * 2 + 1", 7), ("-a", -3), ("[a, 'x']", [3, "x"]), ("{'k': a}['k']", 3), ("2 ** a", None),
        ("a if True else b", 3), ("f(x)[0]", None), ("c", None), ("a / 0", None), ("d", 5), ("b.c.d", None),
        ("10 ** 10 ** 10", None), ("[1][5]", None), ("x if y else z", None), ("(lambda: 1)", None),
    ],
)  # fmt: skip
def test_values_of_expressions(expression: str, value: Any) -> None:
    tree = ast.parse(f"a = 3\nc = c + 1\nd = 4\nd = d + 1\nwanted = {expression}")
    found = Values(tree).of(tree.body[-1].value)  # type: ignore[attr-defined]
    if value is None:
        assert not isinstance(found, int | float | list | dict)
    else:
        assert found == value


def test_names_in_a_circle_end() -> None:
    tree = ast.parse("a = b\nb = a\nwanted = a")
    assert isinstance(Values(tree).of(tree.body[-1].value), Unknown)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [("def f(:", "is no Python"), ("print('hello')", "trains nothing"), ("\0", "is no Python")],
)
def test_what_is_no_training_script(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_source(write(tmp_path, text))
