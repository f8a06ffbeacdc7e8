"""`inbatch compare`: one table of several models, what tells them apart, models that fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file, save_file

from helpers.tiny import save_tiny_bert, tiny_texts
from inbatch.api.evaluate import evaluate
from inbatch.cli.compare import main
from inbatch.encoder import build_encoder

SETS = ("pairs", "triplets", "scored", "labelled")


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    written: dict[str, Any]
    table: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, the second as the folder of a run, the third compares by dot; a set of each kind."""
    folder = tmp_path_factory.mktemp("compare")
    for seed, (name, options) in enumerate(
        {"one": {}, "two/model": {}, "three": {"similarity": "dot"}}.items()
    ):
        bert = save_tiny_bert(folder / f"bert{seed}", seed=seed)
        build_encoder(str(bert), **options).save(folder / name)
    a, b, c = (tiny_texts(60, seed=seed) for seed in range(3))
    rows = {
        "pairs": [{"query": x, "positive": f"{x} {y}"} for x, y in zip(a, b)],
        "triplets": [{"query": x, "positive": y, "negative": z} for x, y, z in zip(a, b, c)],
        "scored": [
            {"query": x, "positive": y, "label": i % 5} for i, (x, y) in enumerate(zip(a, b))
        ],
        "labelled": [
            {"query": x, "positive": y, "label": i % 2} for i, (x, y) in enumerate(zip(a, b))
        ],
    }
    for name, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


@pytest.fixture
def run(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Ended]:
    """Runs the command in the folder of the models."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `main` sets it; to be as before afterwards

    def run(*overrides: str) -> Ended:
        words = [f"output_dir={tmp_path}", "resamples=200", "device=cpu", *overrides]
        monkeypatch.setattr(sys, "argv", ["compare", *words])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured, written = capsys.readouterr(), tmp_path / "comparison.json"
        return Ended(
            code,
            captured.out,
            captured.err,
            json.loads(written.read_text()) if written.exists() else {},
            (tmp_path / "comparison.md").read_text() if written.exists() else "",
        )

    return run


def test_models_on_sets_of_every_kind(run: Callable[..., Ended], folder: Path) -> None:
    sets = [f"data.eval.{name}={name}.jsonl" for name in SETS]
    ended = run("models={a: one, b: two, again: one, dot: three}", *sets)
    assert (ended.code, ended.err) == (0, "")
    columns = ended.written["columns"]
    kinds = ("ndcg@10", "accuracy", "spearman", "ap")
    assert [*columns] == [*(f"{name}_{kind}" for name, kind in zip(SETS, kinds)), "mean"]
    keys = ("pairs_{}_ndcg@10", "triplets_{}_accuracy", "scored_spearman_{}", "labelled_{}_ap")
    for model, path, similarity in (("a", "one", "cosine"), ("dot", "three", "dot")):
        data = {name: str(folder / f"{name}.jsonl") for name in SETS}
        metrics = evaluate(folder / path, data, device="cpu")
        own = ended.written["metrics"][model]
        assert own == {key: pytest.approx(value, abs=1e-6) for key, value in metrics.items()}
        values = [columns[column][model]["value"] for column in columns]
        expected = [own[key.format(similarity)] for key in keys]
        assert values == [*expected, pytest.approx(sum(expected) / 4)]
    for cells in columns.values():
        assert "difference" not in cells["a"]
        same, other = cells["again"], cells["b"]
        assert same["difference"] == same["difference_low"] == same["difference_high"] == 0
        assert not same["told_apart"]
        assert other["difference"] == pytest.approx(other["value"] - cells["a"]["value"])
        assert other["difference_low"] <= other["difference"] <= other["difference_high"]
        outside = other["difference_low"] > 0 or other["difference_high"] < 0
        assert other["told_apart"] == outside
        assert other["low"] <= other["value"] <= other["high"]
    lines = ended.out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("metric "))
    assert lines[header + 1].split()[:3] == ["mean", "a", f"{columns['mean']['a']['value']:.4f}"]
    assert "| a " in ended.table
    assert "200 draws" in ended.table
    assert (Path(ended.out.split("written.plot: ")[1].split()[0])).stat().st_size > 1000


def test_the_seed_decides_which_rows_are_drawn(run: Callable[..., Ended]) -> None:
    given = ("models={a: one, b: two}", "data.eval.pairs=pairs.jsonl")
    first, again, other_seed = (run(*given, f"seed={seed}").written for seed in (0, 0, 1))
    assert again == first
    assert other_seed["metrics"] == first["metrics"]
    assert other_seed["columns"] != first["columns"]


def test_forms_of_the_embeddings_are_columns(run: Callable[..., Ended]) -> None:
    views = ("evaluation.truncate_dims=[8]", "evaluation.quantisations=[binary]")
    ended = run("models=[one,two]", "data.eval.dev=pairs.jsonl", *views)
    assert [*ended.written["columns"]] == [
        *("dev_ndcg@10", "dev_binary_ndcg@10", "dev_8_ndcg@10", "dev_8_binary_ndcg@10")
    ]
    assert [*ended.written["models"]] == ["one", "two"]


def test_a_model_that_fails_is_left_out_with_the_reason(
    run: Callable[..., Ended], folder: Path, tmp_path: Path
) -> None:
    build_encoder(str(folder / "bert0")).save(tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    save_file(
        {**weights, name: weights[name] * float("nan")},
        tmp_path / "broken" / "model.safetensors",
        metadata={"format": "pt"},
    )
    build_encoder(str(folder / "bert0")).save(tmp_path / "cut")
    content = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(content[: len(content) // 2])
    broken = f"nan: {tmp_path / 'broken'}, cut: {tmp_path / 'cut'}"
    models = f"models={{a: one, none: nowhere, {broken}, b: two}}"
    ended = run(models, "data.eval=pairs.jsonl")
    assert ended.code == 1
    assert [*ended.written["metrics"]] == ["a", "b"]
    assert [*ended.written["errors"]] == ["none", "nan", "cut"]
    assert "cannot be loaded" in ended.written["errors"]["cut"]
    assert ended.written["errors"]["none"].startswith(
        "models.none='nowhere' is neither a directory"
    )
    assert "has no value of eval_ndcg@10" in ended.written["errors"]["nan"]
    assert "left out: none: models.none='nowhere'" in ended.out
    assert "Left out: none" in ended.table


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["models=[nowhere,one]"], "models.nowhere='nowhere' is neither a directory"),
        (["models=[one,nowhere]"], "leave nothing to compare (models.nowhere='nowhere'"),
        (["models=[one]"], "models=['one'] does not name two different models"),
        (["models=one"], "models='one' is neither a list nor models by name"),
        ([], "models is not set"),
        (["models=[one,two]", "confidence=95"], "confidence"),
        (["models=[one,two]", "resamples=99"], "resamples=99"),
        (["models=[one,two]", "encoder.model=three"], "encoder.model='three' is not taken here"),
        (["models=[one,two]", "device=cuda:1", "devices=2"], "device='cuda:1' has the index of"),
        (["models=[one,two]", "data.eval=null"], "data.eval is not set"),
        (["models=[one,two]", "evaluation.truncate_dims=[64]"], "more than the 32 dimensions"),
    ],
    ids=[
        "first",
        "others",
        "one",
        "text",
        "none",
        "percent",
        "draws",
        "model",
        "index",
        "no_data",
        "dimensions",
    ],
)
def test_mistakes_are_one_sentence(
    run: Callable[..., Ended], overrides: list[str], says: str
) -> None:
    ended = run("data.eval=pairs.jsonl", *overrides)
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert len(ended.err.splitlines()) == 1
    assert says in ended.err
