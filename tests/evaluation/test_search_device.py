"""Where a retrieval evaluation searches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.evaluation_oracle import ALL_FOUR, Table, assert_same
from inbatch.evaluation import InformationRetrievalEvaluator
from inbatch.evaluation.retrieval_data import make_retrieval_data
from inbatch.evaluation.search_device import search_device

RNG = np.random.default_rng(0)
QUERIES = {f"q{i}": f"query {i}" for i in range(10)}
CORPUS = {f"d{i}": f"document {i}" for i in range(300)}
JUDGEMENTS = {(query, f"d{RNG.integers(300)}"): 1.0 for query in QUERIES}


class On(Table):
    """A table that tells where it computes."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device)


def test_the_search_is_where_the_embeddings_come_from(monkeypatch):
    evaluator = InformationRetrievalEvaluator(make_retrieval_data(QUERIES, CORPUS, JUDGEMENTS))
    assert evaluator.device == "auto"
    for has_gpu, found in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert search_device("auto", Table()).type == found
        assert search_device("auto", On("cpu")) == torch.device("cpu")
        assert search_device("auto", On("cuda:3")) == torch.device("cuda", 3)
        assert search_device("cpu", On("cuda:3")) == torch.device("cpu")
        assert search_device("cuda", On("cpu")) == torch.device("cuda")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        evaluator(On("meta"))  # which computes nothing: it shows that the search goes there


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_metrics_of_the_cpu_and_holds_a_block_at_a_time():
    data = make_retrieval_data(QUERIES, CORPUS, JUDGEMENTS)
    options = {"similarity": ALL_FOUR, "corpus_chunk_size": 150}
    on_cpu = InformationRetrievalEvaluator(data, device="cpu", **options)(Table())
    assert_same(InformationRetrievalEvaluator(data, **options)(Table()), on_cpu)
    data = make_retrieval_data(
        {"q": "query"}, {f"d{i}": f"text {i}" for i in range(40_000)}, {("q", "d1"): 1.0}
    )
    block = 1_000 * 1_024 * 4  # bytes of embeddings

    def encode(texts, *, role):
        return torch.ones(len(texts), 1_024)

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    InformationRetrievalEvaluator(data, corpus_chunk_size=1_000)(encode)
    assert torch.cuda.max_memory_allocated() - before < 8 * block
