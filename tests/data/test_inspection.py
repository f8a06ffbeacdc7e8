"""The parts of an inspection: why roles, which letters, what is cut, which sampler, what is suggested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from helpers.runs import compose_run
from helpers.tiny import tiny_tokenizer
from inbatch.config.check import check_config
from inbatch.config.instantiate import instantiate
from inbatch.data.inspection.advice import advise
from inbatch.data.inspection.examine import place_of
from inbatch.data.inspection.overlap import overlaps
from inbatch.data.inspection.roles import roles_of
from inbatch.data.inspection.samplers import Configured, compare_samplers
from inbatch.data.inspection.scripts import script_shares
from inbatch.data.inspection.seen import kept_characters, seen_rows
from inbatch.data.inspection.values import Advice, SamplerFacts
from inbatch.data.plan.samplers import NoDuplicates, Proportional, Shuffled
from inbatch.data.report.build import build_report
from inbatch.data.report.cells import share
from inbatch.data.report.values import FalseNegatives
from inbatch.data.sources.columns import find_roles
from inbatch.data.sources.load import Source
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.run.datamodule import source_info


@pytest.mark.parametrize(
    ("names", "mapping", "rules"),
    [
        (["query", "pos", "neg_2", "Score"], None, ["pair", "pair", "of a negative", "a label"]),
        (["sentence1", "sentence2"], None, ["numbered", "numbered"]),
        (["text_a", "text_b"], None, ["numbered", "numbered"]),
        (["sentence_0", "sentence_1", "sentence_2"], None, ["numbered"] * 2 + ["text after"]),
        (
            ["title_left", "title_right", "label"],
            None,
            ["sides: title_left and", "sides", "a label"],
        ),
        (["premise", "hypothesis"], None, ["pair", "pair"]),
        (["query", "offer"], {"positive": "offer"}, ["pair", "data.columns.positive names it"]),
        (
            ["a", "b", "c", "id"],
            {"anchor": "a", "positive": "b", "negatives": ["c"], "key": "id"},
            ["columns.anchor", "columns.positive", "columns.negatives", "columns.key"],
        ),
    ],
)
def test_the_rule_that_gave_a_role(
    names: list[str], mapping: dict[str, Any] | None, rules: list[str]
) -> None:
    roles = find_roles(names, mapping=mapping)
    found = roles_of(roles, mapping, field="data.train", prepared=False)
    used = [role for role in found if role.role != "ignored"]
    assert [role.column for role in used] == list(roles.used)
    assert [rule in r.rule for r, rule in zip(used, rules, strict=True)] == [True] * len(rules), (
        used
    )
    assert {r.rule for r in roles_of(roles, mapping, field="x", prepared=True)} == {
        "fixed when the data were prepared"
    }


def test_scripts_are_shares_of_letters() -> None:
    shares = script_shares(["abcd 1234 !", "жизнь", "日本", "ひカ", "한국", "é", "\uff41"])
    assert shares == pytest.approx(
        {"Latin": 6 / 17, "Cyrillic": 5 / 17, "Han": 2 / 17, "Kana": 2 / 17, "Hangul": 2 / 17}
    )
    assert script_shares(["123", ""]) == {}
    assert script_shares(["a" * 1000 + "ж" + "日"]) == {"Latin": pytest.approx(1000 / 1002)}


def test_what_is_cut_is_what_the_tokenizer_cuts() -> None:
    tokenizer = TextTokenizer(hf=tiny_tokenizer(), max_length=6)
    text = "red green blue black white"
    for prompt, kept in (("", "red green blue black"), ("small ", "red green blue")):
        place = kept_characters(tokenizer, text, prompt)
        assert text[:place].strip() == kept
        assert tokenizer([text], prompt)[0] == tokenizer([kept], prompt)[0]
        assert tokenizer.count([text[:place], text[: place + 1]], prompt) == [6, 7]
    assert kept_characters(tokenizer, "red green", "") == len("red green")


def test_rows_are_drawn_by_the_seed_and_shown_as_the_encoder_gets_them() -> None:
    columns = {
        "query": [f"red green blue black white {n}" for n in range(50)],
        "positive": [f"case {n}" for n in range(50)],
        "label": [n / 50 for n in range(50)],
    }
    source = Source.from_columns("mine", columns)
    options: dict[str, Any] = {
        "tokenizer": TextTokenizer(hf=tiny_tokenizer(), max_length=6),
        "prompts": {"query": "small "},
    }
    rows = seen_rows(source, count=10, seed=3, **options)
    assert [row.number for row in rows] == sorted({row.number for row in rows})
    assert rows == seen_rows(source, count=10, seed=3, **options)
    assert rows != seen_rows(source, count=10, seed=4, **options)
    for row in rows:
        query, positive = row.texts
        assert (query.prompt, query.text.strip()) == ("small ", "red green blue")
        assert query.text + query.cut == columns["query"][row.number]
        assert (positive.text, positive.cut) == (columns["positive"][row.number], "")
        assert row.label == pytest.approx(row.number / 50)
    assert len(seen_rows(source, count=99, seed=0, tokenizer=None, prompts=None)) == 50


def test_texts_of_two_columns() -> None:
    columns = {
        "query": ["a", "b", "c", "a"],
        "pos": ["c", "d", "e", "a"],
        "neg": ["x", "y", "z", "z"],
    }
    source = Source.from_columns("mine", columns)
    assert [(o.left, o.right, o.num_texts) for o in overlaps(source)] == [("query", "pos", 2)]
    assert (place_of(source).kind, place_of(source).origin) == ("", "memory")


# --- samplers --------------------------------------------------------------------------------------------


def pairs(name: str, count: int, *, products: int) -> Source:
    """Pairs of which those of one product share their positive."""
    queries = [f"{name} offer {n}" for n in range(count)]
    positives = [f"{name} product {n % products}" for n in range(count)]
    return Source.from_columns(name, {"query": queries, "positive": positives})


def compared(sources: list[Source], name: str, sampler: Any, size: int) -> list[SamplerFacts]:
    infos = [source_info(source) for source in sources]
    options: dict[str, Any] = {"global_batch_size": size, "seed": 1, "drop_last": False}
    plan = sampler.plan(infos, epoch=0, **options)
    return list(
        compare_samplers(
            sources,
            infos,
            contrasted=[source.name for source in sources],
            configured=Configured(name, sampler, plan),
            **options,
        )
    )


def test_samplers_of_one_source() -> None:
    source = pairs("a", 4000, products=1000)
    plain, apart = compared([source], "no_duplicates", NoDuplicates(), 100)
    assert (plain.sampler, plain.configured, plain.num_steps) == ("batch", False, 40)
    assert (apart.sampler, apart.configured, apart.num_steps) == ("no_duplicates", True, 40)
    assert plain.false_negatives.batch_share > 0.9
    # A row meets 99 of 3,999 others, of which 3 have its positive; 1,600 rows are looked at.
    assert plain.false_negatives.row_share == pytest.approx(1 - (1 - 99 / 3999) ** 3, abs=0.03)
    assert plain.false_negatives.negative_share == pytest.approx(3 / 3999, rel=0.4)
    assert apart.false_negatives == FalseNegatives(40, 0, 0, 0)


def test_another_configured_sampler_is_compared_too() -> None:
    for name, shown in (("mine", "mine"), ("batch", "Shuffled")):
        facts = compared([pairs("a", 40, products=40)], name, Shuffled(block_rows=4), 8)
        assert [(f.sampler, f.configured) for f in facts] == [
            ("batch", False),
            ("no_duplicates", False),
            (shown, True),
        ]


def test_samplers_of_several_sources() -> None:
    sources = [pairs("a", 200, products=20), pairs("b", 100, products=100)]
    own = Proportional(within=NoDuplicates())
    facts = {(f.sampler, f.source): f for f in compared(sources, "proportional", own, 10)}
    assert [f.configured for f in facts.values()] == [False] * 6 + [True] * 2
    assert facts["round_robin", "a"].num_skipped == 100
    assert facts["proportional", "a"].num_skipped == 0
    assert facts["proportional of batch", "a"].false_negatives.row_share > 0.1
    assert facts["proportional of batch", "b"].false_negatives.row_share == 0
    assert facts["proportional", "a"].false_negatives.row_share == 0
    mixed = Proportional(within=Shuffled(), mixed=True)
    found = compared(sources, "proportional", mixed, 10)
    assert [f.source for f in found if f.configured] == ["all"]


def test_a_sampler_that_refuses_the_data_says_why() -> None:
    columns = {"query": ["a", "b"], "positive": ["c", "d"], "sku": ["1", "1"]}
    source = Source.from_columns("mine", columns, mapping={"key": "sku"})
    refused, apart = compared([source], "no_duplicates", NoDuplicates(), 2)
    assert refused.problem is not None
    assert "keeps rows apart only with NoDuplicates" in refused.problem
    assert (apart.problem, apart.false_negatives.batch_share) == (None, 0)


# --- advice ----------------------------------------------------------------------------------------------

TRIPLETS = {"query": ["a", "b", "c"], "pos": ["d", "e", "f"], "neg": ["g", "h", "i"]}
PAIRS = {"query": [f"q{n}" for n in range(40)], "positive": [f"p{n}" for n in range(40)]}


def advised(
    *sources: dict[str, Any], size: int = 64, guided: Sequence[str] = ()
) -> tuple[Advice, ...]:
    loaded = [Source.from_columns(name, columns) for name, columns in zip(("one", "two"), sources)]
    return advise(build_report(loaded).sources, (), guided=guided, global_batch_size=size)


@pytest.mark.parametrize(
    ("columns", "loss", "sampler"),
    [
        (TRIPLETS, "loss=cached_multiple_negatives_ranking", "sampler=no_duplicates"),
        (PAIRS, "loss=cached_multiple_negatives_ranking", "sampler=no_duplicates"),
        ({**PAIRS, "label": [0, 1] * 20}, "loss=contrastive", "sampler=batch"),
        ({**PAIRS, "label": [0] * 39 + [1]}, "loss=online_contrastive", "sampler=batch"),
        ({**PAIRS, "score": [n / 8 for n in range(40)]}, "loss=cosent", "sampler=batch"),
        ({**PAIRS, "label": [1] * 40}, "loss=multiple_negatives_ranking", "sampler=no_duplicates"),
        (
            {
                "premise": PAIRS["query"],
                "hypothesis": PAIRS["positive"],
                "label": [0, 1, 2, 1] * 10,
            },
            "loss=multiple_negatives_ranking",
            "sampler=no_duplicates",
        ),
        (
            {**PAIRS, "is_match": [1] * 40},
            "loss=multiple_negatives_ranking",
            "sampler=no_duplicates",
        ),
    ],
)
def test_advice_on_one_source(columns: dict[str, Any], loss: str, sampler: str) -> None:
    advice = advised(columns)
    assert [each.setting for each in advice[:2]] == [loss, sampler]
    assert_settings_work(advice)


def test_advice_on_two_sources() -> None:
    labelled = {**PAIRS, "score": [n / 40 for n in range(40)]}
    loss, sampler, _ = advised(PAIRS, labelled)
    assert loss.setting == "~loss +loss@loss.one=multiple_negatives_ranking +loss@loss.two=cosent"
    assert sampler.setting == "sampler=proportional"
    assert_settings_work((loss, sampler), sources=2)
    loss, sampler, _ = advised(TRIPLETS, PAIRS)
    assert loss.setting == "loss=cached_multiple_negatives_ranking"
    assert sampler.setting.startswith("sampler=temperature")
    assert "13 times the rows of 'one'" in sampler.reason
    assert_settings_work((loss, sampler), sources=2)


def test_a_guide_in_use_is_kept() -> None:
    loss, *_ = advised(TRIPLETS, guided=["one"])
    assert (loss.setting, loss.reason.startswith("as configured")) == ("loss=cached_gist", True)
    loss, *_ = advised(TRIPLETS, TRIPLETS, guided=["one"])
    assert loss.setting == "loss=cached_multiple_negatives_ranking"


def test_advice_on_the_batch_size() -> None:
    many = {"query": [f"q{n}" for n in range(9000)], "positive": [f"p{n}" for n in range(9000)]}
    *_, batch = advised(many, size=16)
    assert batch.setting == "global_batch_size=64"
    assert "141 steps an epoch, where 16 gives 563 steps" in batch.reason
    *_, batch = advised(many, size=512)
    assert batch.setting == "global_batch_size=512"
    assert "18 steps an epoch, which are few" in batch.reason


def test_a_sampler_that_leaves_much_out_is_not_recommended() -> None:
    source = pairs("a", 400, products=4)
    facts = compared([source], "no_duplicates", NoDuplicates(), 20)
    report = build_report([source]).sources
    _, sampler, _ = advise(report, facts, guided=(), global_batch_size=20)
    assert sampler.setting == "sampler=batch loss.mask_duplicates=true"
    assert_settings_work((sampler,))


def assert_settings_work(advice: tuple[Advice, ...], *, sources: int = 1) -> None:
    """What is suggested composes, passes the checks and can be built."""
    files = (
        ["data.train=x.csv"] if sources == 1 else ["data.train.one=x.csv", "data.train.two=y.csv"]
    )
    words = " ".join(each.setting for each in advice).split()
    run = check_config(compose_run("encoder=tiny", *files, *words))
    nodes = [run.loss] if "_target_" in run.loss else list(run.loss.values())
    for node in (*nodes, run.sampler):
        instantiate(node)


def test_rows_of_the_same_numbers() -> None:
    """Shares of an empty comparison are 0, and not a division by it."""
    source = Source.from_columns("mine", {"query": ["a"], "positive": ["b"]})
    plain, _ = compared([source], "batch", Shuffled(), 4)
    found = plain.false_negatives
    assert (plain.num_steps, found.row_share, found.negative_share) == (1, 0, 0)
    assert np.isfinite(found.batch_share)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((None, "-"), (0.0, "0%"), (3e-7, "<0.001%"), (1e-5, "0.001%")),
        *((0.00093, "0.09%"), (0.0123, "1.2%"), (1.0, "100.0%")),
    ],
)
def test_shares_as_they_are_shown(value: float | None, shown: str) -> None:
    assert share(value) == shown


def test_columns_without_a_role() -> None:
    names = ["query", "positive", "shop", "id"]
    for mapping, rule in (
        (None, "no known name"),
        ({"label": "id"}, "no known name"),
        ({"positive": "shop"}, "no known name"),
        ({"anchor": "query", "positive": "positive"}, "data.columns does not name it"),
    ):
        roles = find_roles(names, mapping=mapping)
        found = roles_of(roles, mapping, field="data.train", prepared=False)
        assert {r.rule for r in found if r.role == "ignored"} == {rule}
        assert [r.column for r in found if r.role == "ignored"] == list(roles.ignored)


def test_of_many_rows_common_texts_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"t{n}" for n in range(4000)]
    source = Source.from_columns("mine", {"query": texts, "positive": texts[::-1]})
    monkeypatch.setattr("inbatch.data.report.subsample.COUNTED_ROWS", 1000)
    [overlap] = overlaps(source)
    assert overlap.num_texts == pytest.approx(4000, rel=0.15)
    assert overlap.num_texts != 4000
