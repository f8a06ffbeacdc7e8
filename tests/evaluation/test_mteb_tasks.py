"""Tasks of mteb: the calls that it makes, prompts, results, and what is said where it is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.tiny import tiny_texts
from inbatch.callbacks.encode import Place, ShardedEncode
from inbatch.cli.evaluate import main
from inbatch.config.judging import MtebConfig
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.run.mteb_tasks import MtebModel, load_tasks, run_tasks

FIRST, SECOND = tiny_texts(30, seed=1), tiny_texts(30, seed=2)
LABELS = [i % 5 / 5 for i in range(30)]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """As much of mteb as is called: a task whose score is the similarity of two texts."""

    def get_tasks(*, tasks: Sequence[str], languages: Any) -> list[Any]:
        if tasks != ["Known"]:
            raise KeyError(f"task {tasks[0]} not found.\nand more")
        return [SimpleNamespace(metadata=SimpleNamespace(name="Known"), load_data=lambda: None)]

    def evaluate(model: Any, tasks: Sequence[Any], **options: Any) -> Any:
        assert options == {"co2_tracker": False, "cache": None, "show_progress_bar": False}
        embeddings = model.encode(
            [{"text": ["red"]}, {"text": ["blue phone"]}],
            task_metadata=SimpleNamespace(name="Known", type="STS"),
            hf_split="test",
            hf_subset="default",
            batch_size=32,
        )
        score = float(model.similarity_pairwise(embeddings[:1], embeddings[1:]))
        result = SimpleNamespace(
            task_name="Known", get_score=lambda: score, model_dump=lambda mode: {"score": score}
        )
        return SimpleNamespace(task_results=[result])

    meta = SimpleNamespace(create_empty=lambda known: known)
    models = SimpleNamespace(ModelMeta=meta)
    made = SimpleNamespace(get_tasks=get_tasks, evaluate=evaluate, models=models)
    monkeypatch.setitem(sys.modules, "mteb", made)  # type: ignore[arg-type]
    return made


def test_the_command_runs_tasks(
    stub: SimpleNamespace, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_encoder(str(tiny_bert)).save(tmp_path / "model")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    words = [f"encoder.model={tmp_path / 'model'}", "mteb.tasks=[Known]"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *words, f"output_dir={tmp_path / 'out'}"])
    main()
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    encoder = build_encoder(str(tmp_path / "model"))
    a, b = encoder.encode(["red", "blue phone"])
    expected = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    assert written == {"mteb_Known": pytest.approx(expected, abs=1e-5)}
    result = json.loads((tmp_path / "out" / "mteb" / "Known.json").read_text())
    assert result == {"score": written["mteb_Known"]}


def test_prompts_are_those_of_the_task_before_those_of_the_role(
    stub: SimpleNamespace, tiny_bert: Path
) -> None:
    prompts = {"query": "a ", "Known": "b ", "STS-query": "c ", "Reranking": "d "}
    encoder, asked = build_encoder(str(tiny_bert), prompts=prompts), []

    def encode(texts: Sequence[str], *, role: str | None, prompt: str | None = None) -> Tensor:
        asked.append((role, prompt))
        return torch.zeros(len(texts), 2)

    model = MtebModel(encode, encoder, model="runs/x")
    assert model.mteb_model_meta == {"name": "mteb/x", "revision": "local"}
    query = SimpleNamespace(value="query")
    for name, kind, role in (
        ("Known", "STS", query),
        ("Other", "STS", query),
        ("Other", "Reranking", query),
        ("Other", "None", query),
        ("Other", "STS", None),
    ):
        task = SimpleNamespace(name=name, type=kind)
        model.encode([{"text": ["red"]}], task_metadata=task, prompt_type=role, hf_split="test")
    assert asked == [
        *(("query", "b "), ("query", "c "), ("query", "d "), ("query", None), (None, None))
    ]


def test_mistakes_are_one_sentence(stub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_tasks(MtebConfig()) == []
    with pytest.raises(ConfigError, match=r"mteb.tasks='Knwn' is not known .task Knwn not found."):
        load_tasks(MtebConfig(["Knwn"]))
    with pytest.raises(ConfigError, match=r"mteb.tasks"):
        load_tasks(MtebConfig(["nowhere.Task"]))

    def broken() -> None:
        raise ConnectionError("no network.")

    task = SimpleNamespace(metadata=SimpleNamespace(name="Known"), load_data=broken)
    stub.get_tasks = lambda **_: [task]
    with pytest.raises(ConfigError, match=r"'Known' has data that cannot be loaded .no network."):
        load_tasks(MtebConfig(["Known"]))
    monkeypatch.setitem(sys.modules, "mteb", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as missing:
        load_tasks(MtebConfig(["Known"]))
    assert str(missing.value) == (
        "mteb.tasks needs the package mteb: run pip install 'inbatch[mteb]'"
    )


@pytest.fixture
def task() -> Iterator[Any]:
    """A task of mteb itself, on rows of this module."""
    mteb = pytest.importorskip("mteb", reason="the package mteb is not installed")
    import datasets
    from mteb.abstasks.sts import AbsTaskSTS

    class Local(AbsTaskSTS):
        metadata = mteb.TaskMetadata(
            name="LocalSTS",
            description="rows of a test",
            type="STS",
            dataset={"path": "local/none", "revision": "1"},
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
            reference=None,
            category="t2t",
            modalities=["text"],
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )
        min_score, max_score = 0, 1

        def load_data(self, **_: Any) -> None:
            rows = {"sentence1": FIRST, "sentence2": SECOND, "score": LABELS}
            self.dataset = {"test": datasets.Dataset.from_dict(rows)}
            self.data_loaded = True

    return Local()


def test_a_task_of_mteb_gives_the_score_of_the_own_evaluator(
    task: Any, tiny_bert: Path, tmp_path: Path
) -> None:
    from scipy.stats import spearmanr

    encoder = build_encoder(str(tiny_bert))
    encode = ShardedEncode(Place(torch.device("cpu")), encoder)
    found = run_tasks([task], encode, encoder, model="tiny", folder=tmp_path)
    a, b = encoder.encode(FIRST), encoder.encode(SECOND)
    expected = spearmanr(torch.nn.functional.cosine_similarity(a, b), LABELS).statistic
    assert found == {"mteb_LocalSTS": pytest.approx(expected, abs=1e-4)}
    written = json.loads((tmp_path / "mteb" / "LocalSTS.json").read_text())
    assert written["task_name"] == "LocalSTS"
