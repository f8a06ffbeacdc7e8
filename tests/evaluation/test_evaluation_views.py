"""Fewer dimensions and fewer bits: the formulas of sentence-transformers, names, one embedding for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation as oracle
from sentence_transformers.util import quantize_embeddings
from torch import Tensor

from helpers.evaluation_oracle import Table, assert_same
from helpers.tiny import tiny_texts
from inbatch.callbacks.encode import Place, ShardedEncode
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    RetrievalSetsEvaluator,
)
from inbatch.evaluation.quantise import PRECISIONS, compared, quantise, ranges_of, wider
from inbatch.evaluation.retrieval_data import make_retrieval_data
from inbatch.evaluation.views import View, check_views, evaluate_views, views_of


class Alone(Table):
    """The embeddings of `Table`, as one process gives them."""

    rank, world_size, device = 0, 1, torch.device("cpu")

    def join(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        return rows


def retrieval(name: str, seed: int = 0) -> InformationRetrievalEvaluator:
    corpus = {f"d{i}": text for i, text in enumerate(tiny_texts(90, seed=seed))}
    queries = {f"q{i}": f"find {text}" for i, text in enumerate(tiny_texts(20, seed=seed + 9))}
    judged = {(query, f"d{3 * i}"): 1.0 for i, query in enumerate(queries)}
    data = make_retrieval_data(queries, corpus, judged)
    return InformationRetrievalEvaluator(data, name=name, corpus_chunk_size=40)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dimension", [16, 13])
def test_quantisation_equals_that_of_sentence_transformers(precision: str, dimension: int) -> None:
    rng = np.random.default_rng(0)
    corpus = rng.normal(size=(200, dimension)).astype(np.float32)
    corpus[:, 3] = 0.5  # a dimension of one value
    queries = 1.5 * rng.normal(size=(30, dimension)).astype(np.float32)  # some beyond the ranges
    ranges = wider(ranges_of(corpus[:50]), ranges_of(corpus[50:]))
    for part in (corpus, queries, corpus[:0]):
        ours = quantise(part, precision, ranges_2D=ranges)
        theirs = quantize_embeddings(part, precision, calibration_embeddings=corpus)  # type: ignore[arg-type]
        assert ours.dtype == theirs.dtype  # type: ignore[union-attr]
        np.testing.assert_array_equal(ours, theirs)  # type: ignore[arg-type]
        values = compared(ours, precision, dimension=dimension)
        assert values.dtype == np.float32
        assert values.shape == part.shape
        if "binary" in precision:
            np.testing.assert_array_equal(values, part > 0)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_scored_pairs_have_the_numbers_of_sentence_transformers(
    precision: str, tiny_bert: Path, tmp_path: Path
) -> None:
    first, second = tiny_texts(40, seed=1), tiny_texts(40, seed=2)
    labels = [i % 7 / 7 for i in range(40)]
    build_encoder(str(tiny_bert)).save(tmp_path / "model")
    file = tmp_path / "pairs.tsv"
    rows = zip(first, second, labels)
    file.write_text("\n".join(["query\tpositive\tlabel", *("\t".join(map(str, r)) for r in rows)]))
    theirs = oracle.EmbeddingSimilarityEvaluator(
        first,
        second,
        labels,
        name="dev",
        precision=precision,
        truncate_dim=12,
        write_csv=False,  # type: ignore[arg-type]
    )
    expected = theirs(SentenceTransformer(str(tmp_path / "model"), device="cpu"))
    encode = ShardedEncode(
        Place(torch.device("cpu")), build_encoder(str(tmp_path / "model")), chunk_tokens=512
    )
    ours = EmbeddingSimilarityEvaluator(str(file), name="dev")
    found = evaluate_views([ours], encode, views_of([12], [precision]), tmp_path / "kept")
    prefix = f"dev_12_{precision}_"
    taken = {key.replace(prefix, "dev_"): found[key] for key in found if key.startswith(prefix)}
    assert taken.keys() == expected.keys()
    for (
        key,
        value,
    ) in expected.items():  # an embedding that differs by rounding may take another step
        assert taken[key] == pytest.approx(value, abs=2e-3), key


def test_each_text_is_embedded_once_for_all_views(tmp_path: Path) -> None:
    table = Alone()
    parts = [retrieval("one"), retrieval("two", seed=4)]
    views = views_of([4, 8], ["int8", "binary"])
    assert [view.label for view in views] == [
        *("", "int8", "binary", "8", "8_int8", "8_binary", "4", "4_int8", "4_binary")
    ]
    found = evaluate_views(
        [RetrievalSetsEvaluator(parts, name="both")], table, views, tmp_path / "kept"
    )
    embedded = [(text, role) for texts, role in table.calls for text in texts]
    assert len(embedded) == len(set(embedded))
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    assert len(found) == len(views) * 3 * len(parts[0].metric_names())
    assert "one_8_int8_cosine_ndcg@10" in found
    assert "both_mean_4_cosine_ndcg@10" in found
    whole = RetrievalSetsEvaluator(parts, name="both")(Table())
    assert {key: found[key] for key in whole} == whole
    cut = InformationRetrievalEvaluator(parts[0].data, name="one", truncate_dim=4)(Table())
    assert_same({key: found[key.replace("one", "one_4")] for key in cut}, cut)


def test_ranges_of_int8_are_those_of_the_corpus(tmp_path: Path) -> None:
    one = retrieval("one")
    found = evaluate_views([one], Alone(), views_of([6], ["int8"]), tmp_path / "kept")

    def unit(texts: Sequence[str], role: str) -> np.ndarray:
        rows = Table()(texts, role=role)[:, :6]
        return torch.nn.functional.normalize(rows, dim=1).numpy()

    corpus = unit(one.data.corpus, "document")

    def encode(texts: Sequence[str], *, role: str) -> Tensor:
        stored = quantize_embeddings(unit(texts, role), "int8", calibration_embeddings=corpus)
        return torch.from_numpy(stored).float()  # type: ignore[arg-type]

    expected = one(encode)  # type: ignore[arg-type]
    assert_same({key: found[key.replace("one", "one_6_int8")] for key in expected}, expected)


def test_a_set_has_the_same_numbers_alone_and_in_a_collection(tmp_path: Path) -> None:
    views = views_of([6], ["int8"])
    on_disk: list[int] = []

    class Watched(Alone):
        def __call__(
            self, texts: Sequence[str], *, role: str | None, prompt: str | None = None
        ) -> Tensor:
            on_disk.append(len([*tmp_path.rglob("*.npy")]))
            return super().__call__(texts, role=role)

    parts = [retrieval("one"), retrieval("two", seed=4)]
    together = evaluate_views(
        [RetrievalSetsEvaluator(parts, name="both")], Watched(), views, tmp_path / "kept"
    )
    # Beside the list to come: the queries and two parts of the corpus of one set.
    assert max(on_disk) == 3
    for part in parts:
        alone = evaluate_views([part], Watched(), views, tmp_path / "kept")
        assert alone == {key: together[key] for key in alone}
        assert f"{part.name}_6_int8_cosine_ndcg@10" in alone
    values = [together[f"{name}_6_int8_cosine_ndcg@10"] for name in ("one", "two")]
    assert together["both_mean_6_int8_cosine_ndcg@10"] == pytest.approx(np.mean(values))


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.truncate_dims=0 has a number below 1"):
        views_of([0], [])
    with pytest.raises(ConfigError, match=r"evaluation.quantisations='int4' is not known"):
        views_of([], ["int4"])
    with pytest.raises(ConfigError, match="truncate_dims=64 has more than the 32 dimensions"):
        check_views([View(), View(32), View(64)], 32)
