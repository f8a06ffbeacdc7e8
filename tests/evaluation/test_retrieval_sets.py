"""Several retrieval sets: NanoBEIR in its layout, a folder of BEIR folders, their mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from sentence_transformers.sentence_transformer.evaluation import NanoBEIREvaluator

from helpers.evaluation_oracle import OracleModel, Table, assert_same
from helpers.tiny import tiny_texts
from inbatch.cli.overrides import complete_overrides
from inbatch.config.check_judging import check_evaluate
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.errors import ConfigError
from inbatch.evaluation import RetrievalSetsEvaluator, evaluator_for
from inbatch.evaluation.parts import check_names
from inbatch.evaluation.retrieval_hub import hub_name
from inbatch.evaluation.retrieval_sets import is_collection
from inbatch.run.judging import make_evaluators

SETS = {"NanoSciFact": 0, "NanoArguAna": 1, "NanoNQ": 2}


def texts_of(seed: int) -> tuple[dict[str, str], dict[str, str], dict[str, list[str]]]:
    corpus = {f"d{i}": text for i, text in enumerate(tiny_texts(50, seed=seed))}
    queries = {f"q{i}": f"find {text}" for i, text in enumerate(tiny_texts(8, seed=seed + 100))}
    relevant = {
        query: [f"d{(7 * i + j) % 50}" for j in range(1 + i % 3)] for i, query in enumerate(queries)
    }
    return corpus, queries, relevant


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of `datasets` for this module only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of sentence-transformers/NanoBEIR-en, with an empty text and a list of ids."""
    folder = tmp_path_factory.mktemp("nano") / "NanoBEIR-xx"
    for name, seed in SETS.items():
        corpus, queries, relevant = texts_of(seed)
        tables = {
            "corpus": {"_id": [*corpus, "empty"], "text": [*corpus.values(), ""]},
            "queries": {"_id": list(queries), "text": list(queries.values())},
            "qrels": {"query-id": list(relevant), "corpus-id": list(relevant.values())},
        }
        for part, columns in tables.items():
            (folder / part).mkdir(parents=True, exist_ok=True)
            table = datasets.Dataset.from_dict(columns)
            table.to_parquet(str(folder / part / f"{name}-00000-of-00001.parquet"))
    configs = [
        {
            "config_name": part,
            "data_files": [{"split": name, "path": f"{part}/{name}-*"} for name in SETS],
        }
        for part in ("corpus", "queries", "qrels")
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return folder


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sets as BEIR folders, and a folder and a file that are none."""
    folder = tmp_path_factory.mktemp("beir")
    for name, seed in SETS.items():
        corpus, queries, relevant = texts_of(seed)
        (folder / name / "qrels").mkdir(parents=True)
        for part, texts in (("corpus", corpus), ("queries", queries)):
            lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
            (folder / name / f"{part}.jsonl").write_text("\n".join(lines))
        judged = [f"{query}\t{document}\t1" for query in relevant for document in relevant[query]]
        text = "\n".join(["query-id\tcorpus-id\tscore", *judged])
        (folder / name / "qrels" / "test.tsv").write_text(text)
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("none")
    return folder


def test_nano_beir_has_the_names_and_numbers_of_sentence_transformers(nano: Path) -> None:
    table = Table()
    theirs = NanoBEIREvaluator(["scifact", "arguana", "nq"], dataset_id=str(nano), write_csv=False)
    expected = theirs(OracleModel(table))  # type: ignore[arg-type]
    ours = evaluator_for(
        {"hub": str(nano), "sets": ["SciFact", "nanoarguana", "NQ"]}, name="NanoBEIR"
    )
    assert isinstance(ours, RetrievalSetsEvaluator)
    metrics = ours(table)
    assert_same(metrics, expected)
    assert {*ours.metric_names()} == {*metrics}
    assert ours.primary_metric == "NanoBEIR_mean_cosine_ndcg@10" in metrics
    ours.similarity = ("dot",)  # as of a model
    assert ours.primary_metric == "NanoBEIR_mean_dot_ndcg@10" in ours(table)
    rows = ours.evaluated_rows()
    assert rows.size == 24
    assert rows.contents.startswith(
        "queries of 3 sets (NanoSciFact, NanoArguAna, NanoNQ), 150 documents"
    )


def test_all_sets_are_taken_where_none_is_chosen(nano: Path) -> None:
    ours: Any = evaluator_for({"hub": str(nano), "sets": None, "limit": 2}, name="dev")
    assert [part.name for part in ours.evaluators] == list(SETS)  # in the order of the hub
    assert {len(part.data.queries) for part in ours.evaluators} == {2}


def test_a_folder_of_folders_gives_the_same_numbers(nano: Path, beir: Path) -> None:
    table = Table()
    hub = evaluator_for({"hub": str(nano), "sets": list(SETS)}, name="dev")(table)
    assert is_collection(str(beir))
    assert not is_collection(str(beir / "NanoNQ"))
    ours = evaluator_for({"path": str(beir), "sets": list(SETS)}, name="dev")
    assert ours(table) == hub
    every: Any = evaluator_for(str(beir), columns={"query": "of training"}, name="dev")
    assert [part.name for part in every.evaluators] == sorted(SETS)
    some: Any = evaluator_for({"path": str(beir), "sets": "NanoNQ", "limit": 3, "graded": True})
    assert some.evaluators[0].graded
    assert len(some.evaluators[0].data.queries) == 3


def test_sets_and_columns_of_a_collection_on_the_command_line(nano: Path, beir: Path) -> None:
    def sets_of(*words: str) -> list[str]:
        words = ("encoder.model=none", *words)
        run = check_evaluate(compose("evaluate", complete_overrides(words, CONF)))
        (found,) = make_evaluators(run.evaluation.evaluators)
        assert isinstance(found, RetrievalSetsEvaluator)
        return [part.name for part in found.evaluators]

    for place in (f"data.eval.dev.path={beir}", f"data.eval.dev.hub={nano}"):
        chosen = sets_of(place, "data.eval.dev.sets=[NanoNQ,NanoSciFact]")
        assert chosen == ["NanoNQ", "NanoSciFact"]
    hub = (f"data.eval.dev.hub={nano}", "data.eval.dev.sets=[NanoNQ]")
    with pytest.raises(ConfigError, match=r"data.eval.dev.hub=\S+ has no column 'body'"):
        sets_of(*hub, "data.columns.corpus_text=body")
    with pytest.raises(ConfigError, match=r"data.eval.dev.columns.corpus_txt is not a valid key"):
        sets_of(*hub, "data.columns.corpus_txt=body")
    assert sets_of(*hub, "data.columns={corpus_text: text, query: of training}") == ["NanoNQ"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"hub": "nano", "sets": ["SciFacts"]},
            "data.eval.dev.sets='SciFacts' is not a set of .*did you mean",
        ),
        ({"hub": "nano", "sets": []}, r"data.eval.dev.sets=\[\] is no list of sets"),
        (
            {"hub": "nano", "sets": ["NQ"], "split": "test"},
            "data.eval.dev.split is not a valid key",
        ),
        ({"hub": "nano/none", "sets": ["NQ"]}, "data.eval.dev.hub=.*cannot be loaded"),
        (
            {"path": "beir", "sets": ["Nano"]},
            "data.eval.dev.sets='Nano' is not a folder of a set in",
        ),
        ({"path": "beir", "task": "triplet"}, "data.eval.dev.task='triplet' is for rows"),
        ({"path": "beir", "split": "dev"}, "data.eval.dev.split='dev' is not among the judgements"),
    ],
    ids=["set", "no_set", "key", "hub", "folder", "task", "split"],
)
def test_mistakes_are_named(nano: Path, beir: Path, wrong: dict[str, Any], says: str) -> None:
    places = {"nano": str(nano), "nano/none": str(nano / "none"), "beir": str(beir)}
    given = {
        key: places.get(value, value) if isinstance(value, str) else value
        for key, value in wrong.items()
    }
    with pytest.raises(ConfigError, match=says):
        evaluator_for(given, name="dev")


def test_two_collections_with_a_set_of_one_name_are_refused(beir: Path) -> None:
    sets = [evaluator_for(str(beir), name=name) for name in ("a", "b")]
    with pytest.raises(ConfigError, match="has two of one kind named 'NanoArguAna'"):
        check_names(sets)


def test_the_name_of_the_collection_is_that_of_its_data_set() -> None:
    assert hub_name("NanoBEIR") == "sentence-transformers/NanoBEIR-en"
    assert hub_name("nanobeir-DE") == "sentence-transformers/NanoBEIR-de"
    assert hub_name("NanoBEIR.csv") is None
    assert is_collection("NanoBEIR")
    assert is_collection({"hub": "sentence-transformers/NanoBEIR-en"})
    assert not is_collection({"hub": "sentence-transformers/stsb"})
