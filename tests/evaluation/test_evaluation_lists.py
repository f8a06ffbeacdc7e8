"""Evaluation on rows with lists of positives and negatives."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.evaluation_oracle import Table
from inbatch.api.rows import make_evaluator
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import InformationRetrievalEvaluator, TripletEvaluator, evaluator_for
from inbatch.evaluation.encode_texts import EncodeTexts

ROWS = [
    {"query": "q1", "pos": ["a", "b"], "neg": ["c"]},
    {"query": "q2", "pos": ["c"], "neg": []},
    {"query": "q1", "pos": ["d"], "neg": ["a", "e"]},
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = tmp_path / "lists.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(place)


def test_every_query_looks_for_all_its_positives_among_all_documents(path: str) -> None:
    columns = {"query": "query", "positive": "pos", "negatives": "neg"}
    evaluator = evaluator_for(path, columns=columns)
    assert isinstance(evaluator, InformationRetrievalEvaluator)
    data = evaluator.data
    assert (data.queries, data.corpus) == (["q1", "q2"], ["a", "b", "c", "d", "e"])
    assert data.gains(data.ranks[None].repeat(2, axis=0)).tolist() == [
        [1, 1, 0, 1, 0],
        [0, 0, 1, 0, 0],
    ]
    assert evaluator(Table())["eval_cosine_recall@10"] == 1.0
    assert InformationRetrievalEvaluator(path, columns=columns, limit=1).data.queries == ["q1"]
    Path(path).write_text("".join(json.dumps({**row, "prompt": "Find: "}) + "\n" for row in ROWS))
    for of in (columns, None):  # with None the records' prompt is read as well
        with pytest.raises(ConfigError, match="has lists of documents, which only retrieval takes"):
            TripletEvaluator(path, columns=of)


@dataclass
class _Seen:
    """Notes what it embeds, with the prompts that are not a role's."""

    seen: list[tuple[str, str | None, str | None]]

    def __call__(
        self, texts: Sequence[str], *, role: str | None, prompt: str | None = None
    ) -> torch.Tensor:
        self.seen += [(text, role, prompt) for text in texts]
        return torch.ones(len(texts), 2)


@pytest.mark.parametrize("kind", ["file", "memory", "set"])
def test_queries_stand_behind_the_prompt_of_their_records(kind: str, tmp_path: Path) -> None:
    rows = [{**row, "prompt": "Find: "} for row in ROWS]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if kind == "memory":
        evaluator = make_evaluator("eval", rows, columns={}, key="eval")
    elif kind == "set":
        spec = {"path": str(path), "prompts": {"query": "Find: "}}
        evaluator = evaluator_for({**spec, "format": {"prompt": "ignore"}})
    else:
        evaluator = evaluator_for(str(path))
    assert isinstance(evaluator, InformationRetrievalEvaluator)
    seen = _Seen([])
    evaluator(seen)
    assert seen.seen[:2] == [("q1", "query", "Find: "), ("q2", "query", "Find: ")]
    assert {each[1:] for each in seen.seen[2:]} == {("document", None)}
    of = "set" if kind == "set" else "records"
    assert evaluator.data.notes == (f"queries behind the prompt 'Find: ' of the {of}",)
    mixed = [rows[0], {**rows[1], "prompt": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in mixed))
    again: Any = partial(make_evaluator, "eval", mixed, columns={}, key="eval")
    with pytest.raises(ConfigError, match="has 2 prompts in the column 'prompt'"):
        again() if kind == "memory" else evaluator_for(str(path))


def test_prompts_that_have_no_effect_are_refused_under_their_key(path: str) -> None:
    wrong = {"path": path, "prompts": {"document": "x"}}
    message = "data.eval.prompts={document: 'x'} is for queries alone here: set the"
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluator_for(wrong)
    with pytest.raises(
        ConfigError, match=r"data\.eval\.dev\.prompts\.querry is not a column or a role"
    ):
        evaluator_for({"path": path, "prompts": {"querry": "x"}}, name="dev")


def test_an_encoder_takes_another_prompt_than_the_role_has(tiny_bert: Path) -> None:
    encoder = build_encoder(str(tiny_bert), prompts={"query": "red "})
    own = EncodeTexts(encoder, 512)(["blue"], role="query", prompt="green ")
    torch.testing.assert_close(own, encoder.encode(["green blue"]))
    usual = EncodeTexts(encoder, 512)(["blue"], role="query")
    torch.testing.assert_close(usual, encoder.encode(["red blue"]))
    assert not torch.allclose(own, usual)
