"""Training from Python: every kind of data and object, and mistakes as one sentence."""

from __future__ import annotations

import doctest
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
import torch
import yaml

import inbatch
from helpers.runs import no_plots
from helpers.tiny import tiny_texts
from inbatch import ConfigError, TrainResult
from inbatch.evaluation import TripletEvaluator
from inbatch.losses import CosineSimilarity, MarginMSE, MultipleNegativesRanking

SMALL: dict[str, Any] = {
    "global_batch_size": 8,
    "trainer.max_steps": 2,
    "trainer.accelerator": "cpu",
    "precision": "fp32",
    "optimizer": {"lr": 1e-3},
}


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    no_plots(monkeypatch)


def rows(num: int = 24, *, seed: int = 0) -> list[dict[str, str]]:
    names = ("query", "positive", "negative")
    columns = [tiny_texts(num, seed=seed + i, min_words=3) for i in range(3)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@pytest.fixture
def small(tiny_bert: Path, tmp_path: Path) -> dict[str, Any]:
    return {**SMALL, "encoder": tiny_bert, "output_dir": tmp_path / "out"}


def config(result: TrainResult) -> Any:
    return yaml.safe_load((result.output_dir / "config.yaml").read_text())


def test_the_example_of_the_docstring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    wanted = 0
    for example in doctest.DocTestParser().get_examples(inbatch.train.__doc__ or ""):
        if example.want:
            assert repr(eval(example.source, names)) == example.want.strip()
            wanted += 1
        else:
            exec(example.source, names)
    assert wanted == 2
    again = names["result"]
    assert again.best_metric == "eval_cosine_ndcg@10"
    assert again.metrics[again.best_metric] == again.best_value
    assert again.metrics_before.keys() == again.metrics.keys()


@pytest.fixture(scope="module")
def of_dicts(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, str]:
    """A run on rows in memory, and what it has printed."""
    with redirect_stdout(StringIO()) as shown, pytest.MonkeyPatch.context() as patch:
        no_plots(patch)
        output = tmp_path_factory.mktemp("dicts") / "out"
        result = inbatch.train(rows(), **SMALL, encoder=tiny_bert, output_dir=output)
    return result, shown.getvalue()


@pytest.mark.parametrize("kind", ["dataset", "frame", "file", "path", "files"])
def test_kinds_of_data_train_as_dicts(
    tmp_path: Path,
    small: dict[str, Any],
    kind: str,
    of_dicts: tuple[TrainResult, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame, file = pandas.DataFrame(rows()), tmp_path / "rows.csv"
    frame.to_csv(file, index=False)
    data = {
        "dataset": datasets.Dataset.from_list(rows()),
        "frame": frame,
        "file": str(file),
        "path": file,
        "files": [file],
    }[kind]
    result = inbatch.train(data, **small)
    assert result.metrics == {}
    assert result.best_step is None
    assert (result.model / "model.safetensors").is_file()
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("last loss")
    ]
    whole, shown = of_dicts
    assert line in shown.splitlines()
    expected = whole.load().state_dict()
    for name, tensor in result.load().state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_scores_reach_a_loss_of_ones_own(tmp_path: Path, small: dict[str, Any]) -> None:
    """From memory, and from a file by way of a worker; a row without scores is refused before."""
    data = [
        {**row, "positive_score": n / 8, "negative_score": -n / 16} for n, row in enumerate(rows())
    ]
    file = tmp_path / "rows.csv"
    pandas.DataFrame(data).to_csv(file, index=False)
    options = {**small, "loss": MarginMSE(), "accumulate": 2}
    found = inbatch.train(data, **options).load()
    read = {**options, "output_dir": tmp_path / "file", "data.loader.num_workers": 1}
    for name, tensor in inbatch.train(file, **read).load().state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name])
    data[3]["negative_score"] = None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="lacks some in 1 of its 24 rows: score every document"):
        inbatch.train(data, **{**options, "output_dir": tmp_path / "refused"})
    assert not (tmp_path / "refused" / "model").exists()


def test_several_sources_and_evaluation_sets(tmp_path: Path, small: dict[str, Any]) -> None:
    file = tmp_path / "dev.csv"
    pandas.DataFrame(rows(12, seed=9)).to_csv(file, index=False)
    result = inbatch.train(
        {"a": rows(), "b": datasets.Dataset.from_list(rows(seed=5))},
        {"memory": rows(12, seed=7), "file": file},
        sampler="round_robin",
        **small,
        **{"evaluation.best_metric": "file_cosine_accuracy"},
    )
    assert {name.split("_")[0] for name in result.metrics} == {"memory", "file"}
    assert result.best_metric == "file_cosine_accuracy"
    assert config(result)["data"]["train"]["a"]["path"] == "(in memory: 24 rows)"


def test_columns_of_other_names(small: dict[str, Any]) -> None:
    data = [
        {"id": n, "left": row["query"], "right": row["positive"]} for n, row in enumerate(rows())
    ]
    columns = {"query": "left", "positive": "right", "key": "id"}
    result = inbatch.train(data, data[:8], columns=columns, **small)
    assert "eval_cosine_ndcg@10" in result.metrics


class Constant:
    """A user's own evaluator."""

    name = "mine"
    description = "A constant"
    primary_metric = "mine_value"

    def __call__(self, encode: Any) -> dict[str, float]:
        return {"mine_value": float(len(encode(["a text"], role=None)))}


def test_objects_of_the_users_own(tiny_bert: Path, small: dict[str, Any]) -> None:
    @dataclass(frozen=True)
    class Scaled(MultipleNegativesRanking):
        factor: float = 2.0

        def __call__(self, inputs: Any) -> Any:
            output = MultipleNegativesRanking.__call__(self, inputs)
            return output._replace(loss=self.factor * output.loss)

    encoder = inbatch.load_encoder(tiny_bert)
    before = encoder.encode(["red phone"])
    triplets = TripletEvaluator(inbatch_source(), name="triplets")
    result = inbatch.train(
        rows(),
        [Constant(), triplets],
        **{
            **small,
            "encoder": encoder,
            "loss": Scaled(temperature=0.1),
            "sampler": inbatch.samplers.NoDuplicates(),
        },
    )
    assert result.metrics["mine_value"] == 1.0
    assert "triplets_cosine_accuracy" in result.metrics
    assert not torch.equal(encoder.encode(["red phone"]), before)
    written = config(result)
    assert written["loss"]["_target_"].endswith("Scaled")
    assert written["loss"]["temperature"] == 0.1
    assert written["sampler"]["_target_"].endswith("NoDuplicates")
    assert "Scaled" in (result.model / "README.md").read_text()


def inbatch_source() -> Any:
    from inbatch.data.sources.load import load_table
    from inbatch.data.sources.spec import SourceSpec

    return load_table("rows", datasets.Dataset.from_list(rows(8)), SourceSpec(), field="rows")


def test_a_loss_for_each_source(small: dict[str, Any]) -> None:
    pairs = [{**row, "score": 0.5} for row in rows()]
    for row in pairs:
        del row["negative"]
    losses = {"scored": CosineSimilarity(), "triplets": MultipleNegativesRanking()}
    result = inbatch.train(
        {"scored": pairs, "triplets": rows()}, loss=losses, sampler="round_robin", **small
    )
    assert config(result)["loss"]["scored"]["_target_"].endswith("CosineSimilarity")


def test_names_dicts_and_dotted_keys(small: dict[str, Any]) -> None:
    result = inbatch.train(
        rows(),
        loss={"temperature": 0.1, "similarity": "dot"},
        schedule="cosine",
        gradcache="rows",
        **{**small, "optimizer.weight_decay": 0.5},
    )
    written = config(result)
    assert written["loss"]["temperature"] == 0.1
    assert written["loss"]["similarity"] == "dot"
    assert written["schedule"]["_target_"].endswith("Cosine")
    assert written["optimizer"]["lr"] == 1e-3
    assert written["optimizer"]["weight_decay"] == 0.5


def test_a_second_call_resumes_and_another_run_is_refused(small: dict[str, Any]) -> None:
    first = inbatch.train(rows(), **small)
    again = inbatch.train(rows(), **small)
    for name, tensor in first.load().state_dict().items():
        assert torch.equal(tensor, again.load().state_dict()[name])
    with pytest.raises(ConfigError, match="holds another run"):
        inbatch.train(rows(), seed=7, **small)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "cached_gst"}, "did you mean 'cached_gist'"),
        ({"experiment": "none"}, "experiment='none'"),
        ({"global_batch_sise": 8}, "did you mean 'global_batch_size'"),
        ({"optimizer": {"rate": 1}}, "optimizer.rate"),
        ({"encoder": "no/such/model"}, "no/such/model"),
        ({"loss": torch.nn.MSELoss()}, "which inbatch cannot use as its loss: pass the name"),
        ({"encoder": torch.nn.Linear(1, 1)}, "pass a name, a directory, or an inbatch.Encoder"),
        ({"trainer.devices": 2}, "run `inbatch train ... trainer.devices=2`, or start"),
        ({"train": 3}, "train is a int, which holds no rows"),
        ({"train": []}, "holds no rows"),
        (
            {"train": [{"query": "a", "positive": 1}, {"query": "b", "positive": "x"}]},
            "mixed types",
        ),
        (
            {"train": datasets.DatasetDict(a=datasets.Dataset.from_list(rows()))},
            "has several splits (a)",
        ),
        ({"train": "none.csv"}, "none.csv"),
        ({"train": [{"foo": "a", "bar": "b"}] * 9}, "columns"),
    ],
)
def test_mistakes_are_one_sentence(
    small: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        inbatch.train(**{"train": rows(), **small, **changes})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_of_rows_in_memory(small: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    inbatch.train(rows(), data={"train": {"limit": 9}}, **small)
    assert "9 rows: query, positive, negative" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="bogus is not a valid key"):
        inbatch.train(rows(), data={"train": {"bogus": 1}}, **small)
    two = {"a": rows(), "b": rows(seed=9)}
    with pytest.raises(ConfigError, match=r"does not say of which source .*: name one of a, b"):
        inbatch.train(two, data={"train": {"limit": 9}}, **small)
    with pytest.raises(ConfigError, match=r"data\.train\.b\.limit"):
        inbatch.train(two, data={"train": {"b": {"limit": 0}}}, **small)
