"""The usage code of a card: it runs, and prints what the card says."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.cards import example_card
from inbatch.export.card import render, write_card
from inbatch.export.card_data import UsageExample


def _python(text: str) -> str:
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_usage_code_says_what_it_prints() -> None:
    code = _python(render(example_card()))
    assert "model.encode(sentences)" in code
    assert "# tensor([[ 1.0000,  0.7100,  0.0200]," in code
    assert "#         [ 0.0200, -0.0500,  1.0000]])" in code
    usage = UsageExample(queries=("a",), documents=("b", "c"), similarities=((1.0, 0.5),))
    with pytest.raises(ValueError, match="3 rows of 3 scores"):
        render(example_card(usage=usage))


def test_usage_code_follows_the_prompts() -> None:
    encoder = {**example_card().encoder, "prompts": {"query": "query: ", "passage": "passage: "}}
    text = render(example_card(encoder=encoder, usage=None))
    assert "model.encode_query(queries)" in _python(text)
    assert "model.encode_document(documents)" in _python(text)
    assert "`encode_query` puts `'query: '` before each query" in text
    assert "`'passage: '` before each document" in text


@pytest.mark.parametrize("prompts", [{}, {"query": "query: ", "document": "text: "}])
def test_usage_code_runs_and_prints_what_the_card_says(
    prompts: dict[str, str], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    st = pytest.importorskip("sentence_transformers")
    model = st.SentenceTransformer(str(tiny_bert), prompts=prompts, device="cpu")
    model.save(str(tmp_path))
    usage = UsageExample(queries=("a 'quoted' \"text\"",), documents=("back\\slash", "new\nline"))
    encode = model.encode_query(list(usage.queries)), model.encode_document(list(usage.documents))
    if not prompts:
        encode = (model.encode([*usage.queries, *usage.documents]),) * 2
    scores = model.similarity(*encode).tolist()
    card = example_card(
        encoder={**example_card().encoder, "prompts": prompts, "output_dimension": 32},
        usage=replace(usage, similarities=scores),
    )
    write_card(card, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = _python((tmp_path / "README.md").read_text(encoding="utf-8"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    said = re.findall(r"^# ((?:\(|tensor| {7}).*)$", code, re.MULTILINE)
    assert printed.getvalue().splitlines() == said
