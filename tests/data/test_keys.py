"""Rows that share a key never stand in one global batch, from the file to the batches of the datamodule."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.tiny import tiny_tokenizer
from inbatch.batch.batch import Batch
from inbatch.data.collate import Collator
from inbatch.data.hashing import hash_texts
from inbatch.data.plan.plan import Sampler
from inbatch.data.plan.samplers import NoDuplicates, Proportional, Shuffled
from inbatch.data.report.build import build_report
from inbatch.data.report.text import to_markdown
from inbatch.data.sources.columns import find_roles
from inbatch.data.sources.load import Source, load_sources
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError
from inbatch.run.datamodule import BatchModule

KEYED = {"key": "product_id"}
TEXTS = {"query": "query", "positive": "positive"}


def source_of(keys: list[Any], name: str = "offers", **options: Any) -> Source:
    """Distinct texts, so that only keys can keep rows apart."""
    columns: dict[str, list[Any]] = {
        "query": [f"{name} query {i}" for i in range(len(keys))],
        "positive": [f"{name} positive {i}" for i in range(len(keys))],
        "product_id": keys,
    }
    return Source.from_columns(name, columns, **{"mapping": KEYED, **options})


def module_of(sources: list[Source], sampler: Sampler, batch: int, seed: int = 0) -> BatchModule:
    module = BatchModule(
        sources,
        sampler=sampler,
        collator=Collator(tokenizer=TextTokenizer(hf=tiny_tokenizer(), max_length=12)),
        global_batch_size=batch,
        seed=seed,
        drop_last=False,
    )
    strategy = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
    trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    module.trainer = cast(Any, trainer)
    return module


def keys_of(batch: Batch, sources: list[Source]) -> list[int]:
    """Keys of a batch's rows, found through the hashes of their queries."""
    by_query = {
        query: key
        for source in sources
        for query, key in zip(source.text_hashes()[0].tolist(), cast(Any, source.keys()).tolist())
    }
    return [by_query[query] for query in batch.text_ids[0].tolist()]


@pytest.mark.parametrize("kind", [int, str])
def test_rows_of_one_key_never_meet_in_the_batches_of_a_run(kind: type) -> None:
    source = source_of([kind(i // 4) for i in range(96)])
    module = module_of([source], NoDuplicates(), 8)
    batches = [parcel.open("cpu") for parcel in module.train_dataloader()]
    assert sum(batch.num_rows for batch in batches) == 96
    for batch in batches:
        keys = keys_of(batch, [source])
        assert len(set(keys)) == len(keys)
    # The texts are all distinct: without the key the same rows do meet.
    free = source_of([0] * 96, mapping=None)
    plan = module_of([free], NoDuplicates(), 8).plan(0)
    assert any(len(set((batch.rows // 4).tolist())) < 8 for batch in plan)


@pytest.mark.parametrize("mixed", [False, True])
def test_several_sources_share_one_space_of_keys(mixed: bool) -> None:
    sources = [source_of(list(range(40)), "a"), source_of([str(i) for i in range(40)], "b")]
    module = module_of(sources, Proportional(NoDuplicates(), mixed=mixed), 10)
    seen = [keys_of(parcel.open("cpu"), sources) for parcel in module.train_dataloader()]
    assert sum(map(len, seen)) == 80
    assert all(len(set(keys)) == len(keys) for keys in seen)


def test_a_key_that_reads_as_a_text_is_not_that_text() -> None:
    columns = {"query": ["a", "b"], "positive": ["c", "d"], "product_id": ["b", "a"]}
    source = Source.from_columns("x", columns, mapping=KEYED)
    [parcel] = module_of([source], NoDuplicates(), 2).train_dataloader()
    batch = parcel.open("cpu")
    assert batch.num_rows == 2


def test_numbers_and_their_digits_are_one_key_in_every_format(tmp_path: Path) -> None:
    rows = {"query": ["a", "b"], "positive": ["c", "d"], "product_id": [7, 12]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    lines = ["query,positive,product_id", "a,c,7", "b,d,12"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    for name in ("a.parquet", "a.csv"):
        spec = {"x": {"path": str(tmp_path / name), "columns": KEYED}}
        [source] = load_sources(spec, cache_dir=str(tmp_path / "cache"))
        assert (source.columns, source.roles.key) == (("query", "positive"), "product_id")
        keys = source.keys()
        assert keys is not None
        assert keys.tolist() == hash_texts(["7", "12"]).tolist()
    assert len(list((tmp_path / "cache").glob("key_hashes-*.npy"))) == 2
    [plain] = load_sources({"x": str(tmp_path / "a.csv")}, cache_dir=str(tmp_path / "cache"))
    assert plain.keys() is None


def test_another_key_is_another_plan() -> None:
    prints = [
        module_of([source_of(keys)], NoDuplicates(), 2).fingerprint["content"]
        for keys in ([1, 2, 3], [1, 2, 4], [1, 2, 3])
    ]
    assert prints[0] == prints[2] != prints[1]


def test_dropped_rows_have_no_key() -> None:
    source = source_of([1, None, 3], on_empty="drop")
    assert source.num_rows == 2
    keys = source.keys()
    assert keys is not None
    assert keys.tolist() == hash_texts(["1", "3"]).tolist()


def test_the_report_counts_keys() -> None:
    report = build_report([source_of([1, 1, 1, 2, 2, 3])])
    key = report.sources[0].key
    assert key is not None
    assert (key.name, key.num_distinct, key.num_sharing_rows, key.most_rows) == (
        "product_id",
        3,
        5,
        3,
    )
    assert "key `product_id`: 3 distinct; 5 rows share theirs, at most 3 one" in to_markdown(report)
    assert build_report([source_of([1, 2], mapping=None)]).sources[0].key is None


def test_roles_with_a_key() -> None:
    names = ["query", "positive", "product_id", "id"]
    roles = find_roles(names, mapping=KEYED)
    assert (roles.texts, roles.key, roles.ignored) == (("query", "positive"), "product_id", ("id",))
    assert roles.used == ("query", "positive", "product_id")
    named = find_roles(names, mapping={"query": "id", "positive": "query", **KEYED})
    assert (named.texts, named.ignored) == (("id", "query"), ("positive",))
    # A column that is named as key is no text, whatever it is called.
    assert find_roles(["query", "positive", "doc"], mapping={"key": "doc"}).positive == "positive"


@pytest.mark.parametrize(
    ("keys", "options", "word"),
    [
        ([1, 2], {"mapping": {"key": "product"}}, "names 'product', which the data does not have"),
        (
            [1, 2],
            {"mapping": {**TEXTS, "key": ["a", "b"]}},
            "columns.key=['a', 'b'] does not name one",
        ),
        (
            [1.5, 2.5],
            {},
            "columns.key='product_id' names a column of double, but keys are texts or whole numbers",
        ),
        ([1, None], {}, "no key (null) in column 'product_id', row 1"),
    ],
)
def test_mistakes(keys: list[Any], options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as error:
        source_of(keys, **options)
    assert word in str(error.value)


def test_a_key_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"columns\.key of source 'offers' .*no_duplicates"):
        module_of([source_of([1, 2])], Shuffled(), 2).plan(0)
