"""Texts come out of a Markdown renderer as they went in."""

from __future__ import annotations

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from inbatch.export import markdown as md
from inbatch.export.card_data import choose_widget, column_stats
from inbatch.export.redaction import REDACTED, flatten, redact

HOSTILE = [
    "a | b || c",
    "<script>alert(1)</script> &amp; </code></td>",
    "**bold** _it_ `code` ~~gone~~ [x](javascript:1) ![i](u)",
    "back\\slash \\| and \\* and \\",
    "snake_case _lead trail_ $x^2$",
    "two\nlines\r\nthree",
    "``` fence ``` and ```` longer",
    "| --- | --- |",
    "",
]
RENDER = MarkdownIt("commonmark").enable("table").enable("strikethrough").render


def _cells(html: str) -> list[str]:
    return re.findall(r"<td[^>]*>(.*?)</td>", html, re.DOTALL)


@pytest.mark.parametrize("text", HOSTILE)
def test_cell_shows_its_text(text: str) -> None:
    html = RENDER(md.table(["text", "label"], [[md.code_cell(text), md.code_cell("1.0")]]))
    cells = _cells(html)
    assert len(cells) == 2
    shown = cells[0].removeprefix("<code>").removesuffix("</code>")
    lines = [" ".join(line.split()) for line in text.splitlines()] or [""]
    assert unescape(shown.replace("<br>", "\n")) == "\n".join(lines)
    assert "<" not in shown.replace("<br>", "")


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_inline_shows_its_text(text: str) -> None:
    html = RENDER(f"- **Name:** {md.inline(text)}")
    shown = html.split("</strong> ")[1].split("</li>")[0]
    assert unescape(shown) == " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_code_span_and_block_show_their_text(text: str) -> None:
    span = RENDER(f"x {md.code_span(text)} y")
    assert unescape(span) == f"<p>x <code>{' '.join(text.split())}</code> y</p>\n"
    block = unescape(RENDER(f"before\n\n{md.fenced(text, 'json')}\n\nafter"))
    assert f'<code class="language-json">{md.clean(text)}\n</code>' in block
    assert block.endswith("<p>after</p>\n")


def test_long_texts_are_cut_and_short_ones_are_not() -> None:
    assert md.shorten("abc def", 7) == "abc def"
    assert md.shorten("abc defg", 5) == "abc…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.64139, "0.6414"),
        (0.0, "0.0000"),
        (2e-5, "2.000e-05"),
        (7, "7"),
        (None, "-"),
        (float("nan"), "nan"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert md.number(value) == text


@pytest.mark.parametrize(
    "key",
    [
        *("hub_token", "authToken", "access_tokens", "API_KEY", "apikey", "wandb.api-key"),
        *("password", "Secret"),
    ],
)
def test_secret_keys_are_redacted(key: str) -> None:
    assert redact({key: "x-1"}) == {key: REDACTED}
    assert redact({"a": [{key: {"deep": "x-1"}}]}) == {"a": [{key: {"deep": REDACTED}}]}
    assert redact({key: None}) == {key: None}


@pytest.mark.parametrize(
    "values",
    [
        {"chunk_tokens": 8192},
        {"guide": {"chunk_tokens": "auto"}},
        {"tokenizer": "bert-base-uncased"},
        {"encoder": {"pooling": "mean", "pooling_mode_cls_token": True}},
        {"path": "https://host/x@y", "keys": ["a", 1, 0.5, None]},
    ],
)
def test_other_settings_are_kept(values: dict[str, object]) -> None:
    assert redact(values) == values


def test_secret_parts_of_texts_are_redacted() -> None:
    found = redact({"url": "s3://key:hush@bucket/x", "note": "token hf_" + "a" * 30})
    assert found == {"url": f"s3://{REDACTED}@bucket/x", "note": f"token {REDACTED}"}


def test_flatten_keeps_every_value() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}


def test_widget_takes_short_distinct_rows_and_their_own_positive() -> None:
    rows = [
        ("q3", "long positive 3"),
        ("q1", "p1", "n1"),
        ("q1", "p1 again"),
        ("q2", "p2"),
        ("", "empty"),
    ]
    found = choose_widget(rows, count=2)
    assert [example.source_sentence for example in found] == ["q1", "q2"]
    for example, own in zip(found, ("p1", "p2"), strict=True):
        assert sorted(example.sentences) == ["long positive 3", "p1", "p2"]
        assert own in example.sentences
    assert choose_widget(rows[:2]) == ()


def test_column_stats() -> None:
    stats = column_stats([3, 5, 10])
    assert (stats.type, stats.min, stats.mean, stats.max) == ("string", 3, 6.0, 10)
