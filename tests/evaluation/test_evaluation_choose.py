"""Sets of `data.eval`: which evaluator they get, and columns of their own beside the training data's."""

from __future__ import annotations

from pathlib import Path

import pytest

from inbatch.errors import ConfigError
from inbatch.evaluation import (
    BinaryClassificationEvaluator,
    InformationRetrievalEvaluator,
    evaluator_for,
)

SHARED = {"anchor": "offer", "key": "sku"}


@pytest.fixture
def labels(tmp_path: Path) -> str:
    rows = "".join(f"a {i},b {i},{i % 2}\n" for i in range(6))
    (tmp_path / "labels.csv").write_text("offer,title,label\n" + rows)
    return str(tmp_path / "labels.csv")


def test_the_advice_for_a_set_without_a_name_works(labels: str) -> None:
    with pytest.raises(ConfigError) as error:
        evaluator_for(labels, columns=SHARED)
    advice = "set data.eval.columns.positive beside data.eval=FILE"
    assert str(error.value).startswith("data.columns.positive is not set")
    assert str(error.value).endswith(advice)
    # Query and positive are both given then, so that nothing else is looked for.
    found = evaluator_for(
        {"path": labels, "columns": {"positive": "title"}}, columns=SHARED, name="NAME"
    )
    assert isinstance(found, InformationRetrievalEvaluator)
    own = {"positive": "title", "label": "label"}
    found = evaluator_for({"path": labels, "columns": own}, columns=SHARED, name="NAME")
    assert isinstance(found, BinaryClassificationEvaluator)
    assert (found.first[2], found.second[2]) == ("a 2", "b 2")


def test_own_columns_win_over_those_of_the_training_data(labels: str) -> None:
    own = {"query": "title", "positive": "offer", "label": "label"}
    found = evaluator_for({"path": labels, "columns": own}, columns=SHARED)
    assert isinstance(found, BinaryClassificationEvaluator)
    assert found.first[0] == "b 0"


def test_a_column_that_a_set_does_not_have(labels: str) -> None:
    with pytest.raises(ConfigError) as error:
        evaluator_for(labels, columns={"query": "name", "positive": "title"})
    assert str(error.value).startswith("data.columns names 'name', which the data does not have")
    assert "(offer, title, label), set data.eval.columns.ROLE=COLUMN beside" in str(error.value)


def test_a_missing_file_has_the_key_as_typed() -> None:
    for name, key in (("eval", "data.eval"), ("dev", "data.eval.dev")):
        with pytest.raises(ConfigError, match=f"^{key}='nofile.csv' matches no file"):
            evaluator_for("nofile.csv", name=name)


def test_a_folder_takes_no_columns_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("id,body\n1,text one\n2,text two\n")
    (tmp_path / "queries.csv").write_text("id,text\nq,query\n")
    (tmp_path / "qrels.csv").write_text("qid,did\nq,1\n")
    own = {"corpus_text": "body"}
    found = evaluator_for({"path": str(tmp_path), "columns": own}, columns=SHARED, name="dev")
    assert isinstance(found, InformationRetrievalEvaluator)
    found = evaluator_for(str(tmp_path), columns={**SHARED, **own})
    assert isinstance(found, InformationRetrievalEvaluator)
