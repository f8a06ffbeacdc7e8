"""Roles by name, by mapping, and the mistakes that must not pass."""

from __future__ import annotations

import pytest

from inbatch.data.sources.columns import Roles, find_roles, resolve_prompts
from inbatch.errors import ConfigError


@pytest.mark.parametrize(
    ("names", "texts", "label", "ignored"),
    [
        (["query", "pos", "neg"], ["query", "pos", "neg"], None, []),
        (["left", "right", "label"], ["left", "right"], "label", []),
        (
            ["sentence1", "sentence2", "score", "genre"],
            ["sentence1", "sentence2"],
            "score",
            ["genre"],
        ),
        (["sentence_0", "sentence_1"], ["sentence_0", "sentence_1"], None, []),
        (["label", "sentence_B", "sentence_A"], ["sentence_A", "sentence_B"], "label", []),
        (
            ["sentence_2", "sentence_0", "sentence_1"],
            ["sentence_0", "sentence_1", "sentence_2"],
            None,
            [],
        ),
        (["id", "text1", "text2"], ["text1", "text2"], None, ["id"]),
        (["title_left", "title_right", "label"], ["title_left", "title_right"], "label", []),
        (["premise", "hypothesis", "labels"], ["premise", "hypothesis"], "labels", []),
        (["Question", "Answer", "Scores"], ["Question", "Answer"], "Scores", []),
        (["lang", "query", "passage"], ["query", "passage"], None, ["lang"]),
        (
            ["anchor", "positive", "negative_10", "negative_2", "negative_1"],
            ["anchor", "positive", "negative_1", "negative_2", "negative_10"],
            None,
            [],
        ),
        (["query", "document", "hard_negative"], ["query", "document", "hard_negative"], None, []),
        (["neg_1", "neg_2", "pos", "query"], ["query", "pos", "neg_1", "neg_2"], None, []),
    ],
)
def test_known_names(
    names: list[str], texts: list[str], label: str | None, ignored: list[str]
) -> None:
    roles = find_roles(names)
    assert list(roles.texts) == texts
    assert roles.label == label
    assert list(roles.ignored) == ignored


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["title", "description"], "match no known pair"),
        (["query"], "match no known pair"),
        (["sentence_1", "sentence_3"], "match no known pair"),
        (["query", "question", "answer"], "more than one way"),
        (["query", "pos", "sentence1", "sentence2"], "more than one way"),
        (["query", "pos", "label", "score"], "more than one way"),
    ],
)
def test_no_silent_choice(names: list[str], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as error:
        find_roles(names, field="data.train.x")
    assert "data.train.x.columns" in str(error.value)
    assert names[0] in str(error.value)


def test_mapping_alone_decides() -> None:
    names = ["query", "pos", "score", "title"]
    roles = find_roles(names, mapping={"query": "title", "positive": ["query"], "negatives": "pos"})
    assert roles == Roles("title", "query", ("pos",), None, ("score",))


@pytest.mark.parametrize(
    ("mapping", "word"),
    [
        ({"query": "a"}, "columns.positive"),
        ({"query": "a", "positive": ["b", "c"]}, "does not name one column"),
        ({"query": "a", "positive": "bb"}, "names 'bb'"),
        ({"query": "a", "positive": "a"}, "twice"),
        ({"query": "a", "positve": "b"}, "did you mean 'positive'"),
        ({"query": 3, "positive": "b"}, "give its name"),
    ],
)
def test_mapping_mistakes(mapping: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        find_roles(["a", "b", "c"], mapping=mapping)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"anchor": "title"}, Roles("title", "positive", ("neg",), "score", ("query", "id"))),
        ({"positive": "title"}, Roles("query", "title", ("neg",), "score", ("positive", "id"))),
        ({"label": "id"}, Roles("query", "positive", ("neg",), "id", ("title", "score"))),
        (
            {"anchor": "title", "positive": "query", "negative": "neg", "score": "id"},
            Roles("title", "query", ("neg",), "id", ("positive", "score")),
        ),
    ],
)
def test_a_mapping_of_some_roles_leaves_the_others_to_their_names(
    mapping: dict[str, object], expected: Roles
) -> None:
    names = ["query", "title", "positive", "neg", "score", "id"]
    assert find_roles(names, mapping=mapping) == expected


@pytest.mark.parametrize(
    ("names", "mapping", "expected"),
    [
        (["label", "text"], None, Roles("text", "", label="label")),
        (
            ["Sentence", "labels", "id"],
            None,
            Roles("Sentence", "", label="labels", ignored=("id",)),
        ),
        (["title", "score"], {"query": "title"}, Roles("title", "", label="score")),
        (["text", "brand"], {"label": "brand"}, Roles("text", "", label="brand")),
        (
            ["query", "answer", "kind"],
            {"query": "query", "positive": None, "label": "kind"},
            Roles("query", "", label="kind", ignored=("answer",)),
        ),
    ],
)
def test_rows_of_one_text_and_a_label(
    names: list[str], mapping: dict[str, object] | None, expected: Roles
) -> None:
    roles = find_roles(names, mapping=mapping)
    assert roles == expected
    assert roles.texts == (expected.query,)


@pytest.mark.parametrize(
    ("names", "mapping", "word"),
    [
        (["text", "brand"], None, "match no known pair"),
        (["text", "label", "score"], None, "match no known pair"),
        (
            ["query", "answer"],
            {"query": "query", "positive": None},
            "rows of one text need a label",
        ),
        (
            ["a", "b", "c"],
            {"query": "a", "positive": None, "negatives": "b", "label": "c"},
            "stands beside no positive",
        ),
    ],
)
def test_one_text_is_no_guess(
    names: list[str], mapping: dict[str, object] | None, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        find_roles(names, mapping=mapping)


def test_prompts_narrow_wins_over_wide() -> None:
    roles = Roles("title", "positive", ("neg_1", "neg_2"))
    prompts = {"query": "q: ", "document": "d: ", "negative": "n: ", "neg_2": "n2: "}
    assert resolve_prompts(prompts, roles) == ("q: ", "d: ", "n: ", "n2: ")
    assert resolve_prompts({"passage": "p: "}, roles) == ("", "p: ", "p: ", "p: ")
    assert resolve_prompts(None, roles) == ("", "", "", "")
    with pytest.raises(ConfigError, match="did you mean 'query'"):
        resolve_prompts({"qurey": "x"}, roles)
