"""Short runs over every path that numbers take, and what they leave behind, to compare before and after.

A change that is not meant to change results must leave every number as it was: bit for bit on one machine,
within `TOLERANCES` on another, whose libraries may add in another order. Only the command line's
overrides and the files of a run are used, so that the record outlives any change of the code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.distributed import run
from helpers.launching import ROOT
from helpers.launching import run as run_command
from helpers.runs import TINY, metrics, run_train, train_as_rank, weights, write_triplets
from helpers.tiny import save_tiny_bert, tiny_texts

COLUMNS = ("train/loss", "train/gradient_norm")
#: Parts of the largest value of a run's column. On one machine, kernels without vector instructions change
#: losses and norms by up to 2e-6, and weights by 1e-5: Adam enlarges gradients that are only rounding.
TOLERANCES = {**dict.fromkeys(COLUMNS, 1e-5), "sums": 5e-5}


@dataclass(frozen=True)
class Case:
    """One run: its overrides, its ranks, and the overrides of a second start, if it is resumed.

    `prepared_with` are those of a `prepare` command ahead of it.
    ``{name}`` in an override is a file or folder that `write_inputs` has made.
    """

    overrides: tuple[str, ...]
    ranks: int = 1
    resumed_with: tuple[str, ...] = ()
    prepared_with: tuple[str, ...] = ()


TRIPLETS = ("data.train.triplets={triplets}", "global_batch_size=8", "trainer.max_steps=5")
PAIRS = ("data.train.scored={scored}", "global_batch_size=8", "trainer.max_steps=4")
BINARY = ("data.train.labelled={labelled}", "global_batch_size=8", "trainer.max_steps=4")
TWO = ("data.train.triplets={triplets}", "data.train.scored={scored}", "global_batch_size=8")
CHUNKED = ("gradcache=rows", "gradcache.chunk_size=3")
STORED = ("guide.model={guide}", "guide.store_dir={store}")
ON_TWO = (*TRIPLETS, "++encoder.config.hidden_dropout_prob=0")

CASES = {
    "direct": Case((*TRIPLETS, "loss=multiple_negatives_ranking", "sampler=no_duplicates")),
    "cached": Case((*TRIPLETS, "loss=cached_multiple_negatives_ranking", *CHUNKED)),
    "cached_gist_stored": Case((*TRIPLETS, "loss=cached_gist", *CHUNKED, *STORED)),
    "gist_live": Case((*TRIPLETS, "loss=gist", "guide.model={guide}", "guide.mode=live")),
    "symmetric": Case((*TRIPLETS, "loss=multiple_negatives_symmetric_ranking")),
    "matryoshka": Case((*TRIPLETS, "loss=matryoshka", "loss.dims=[32,16]", "loss.weights=null")),
    "triplet": Case((*TRIPLETS, "loss=triplet", "accumulate=2")),
    "cosent": Case((*PAIRS, "loss=cosent")),
    "angle": Case((*PAIRS, "loss=angle", *CHUNKED)),
    "cosine_similarity": Case((*PAIRS, "loss=cosine_similarity")),
    "contrastive": Case((*BINARY, "loss=contrastive")),
    "online_contrastive": Case((*BINARY, "loss=online_contrastive")),
    "round_robin": Case(
        (
            *TWO,
            "~loss",
            "+loss.triplets._target_=inbatch.losses.MultipleNegativesRanking",
            "+loss.scored._target_=inbatch.losses.CoSENT",
            "sampler=round_robin",
        )
    ),
    "proportional": Case(
        (*TRIPLETS, "data.train.more={more}", "loss=triplet", "sampler=proportional")
    ),
    "mixed": Case(
        (
            "data.train.triplets={triplets}",
            "data.train.more={more}",
            "global_batch_size=8",
            "trainer.max_steps=5",
            "loss=multiple_negatives_ranking",
            "sampler=proportional",
            "sampler.mixed=true",
        )
    ),
    "streamed": Case(
        (
            "data=files",
            "data.train={{pairs: {{path: {files}/*.jsonl, streaming: true, buffer_files: 2}}}}",
            "data.cache_dir={cache}",
            "loss=multiple_negatives_ranking",
            "global_batch_size=8",
            "trainer.max_steps=5",
        )
    ),
    "prepared": Case(
        (
            "data=files",
            "data.train={shards}",
            "loss=multiple_negatives_ranking",
            "sampler=no_duplicates",
            "global_batch_size=8",
            "trainer.max_steps=5",
        ),
        prepared_with=(
            "data.train.triplets={triplets}",
            "data.cache_dir={cache}",
            "prepare.output={shards}",
            "prepare.shard_rows=10",
            "prepare.tokenize=true",
        ),
    ),
    "resumed": Case(
        (
            "data.train.triplets={triplets}",
            "global_batch_size=8",
            "loss=cached_multiple_negatives_ranking",
            "gradcache.keep_gib=null",
            "trainer.max_epochs=1",
        ),
        resumed_with=("trainer.max_epochs=2",),
    ),
    "resumed_within_epoch": Case(
        (
            "data.train.triplets={triplets}",
            "global_batch_size=8",
            "loss=cached_multiple_negatives_ranking",
            "gradcache.keep_gib=null",
            "trainer.max_epochs=2",
            "trainer.max_steps=3",
        ),
        resumed_with=("trainer.max_steps=8",),
    ),
    "ddp_gathered": Case((*ON_TWO, "loss=cached_gist", *CHUNKED, *STORED, "strategy=ddp"), ranks=2),
    "ddp_ring": Case(
        (*ON_TWO, "loss=multiple_negatives_ranking", "gather=ring", "strategy=ddp"), ranks=2
    ),
    "fsdp": Case((*ON_TWO, "loss=multiple_negatives_ranking", "strategy=fsdp"), ranks=2),
    "deepspeed": Case(
        (*ON_TWO, "loss=multiple_negatives_ranking", *CHUNKED, "strategy=deepspeed_stage_2"),
        ranks=2,
    ),
}


def write_inputs(folder: Path) -> dict[str, str]:
    """Make the data and the guide; return their paths by name."""
    write_triplets(folder / "triplets.jsonl", 40)
    write_triplets(folder / "more.jsonl", 24, seed=70)
    a, b = tiny_texts(32, seed=5), tiny_texts(32, seed=6)
    for name, column, label in (
        ("scored", "score", lambda i: i / 32),
        ("labelled", "label", lambda i: i % 2),
    ):
        rows = [{"sentence1": a[i], "sentence2": b[i], column: label(i)} for i in range(32)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = tiny_texts(120, seed=3, min_words=4)
    (folder / "files").mkdir()
    for place in range(5):
        rows = [{"query": texts[12 * place + i], "positive": texts[60 + i]} for i in range(12)]
        (folder / "files" / f"{place}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    save_tiny_bert(folder / "guide", seed=1)
    names = ("triplets.jsonl", "more.jsonl", "scored.jsonl", "labelled.jsonl")
    paths = {name.removesuffix(".jsonl"): str(folder / name) for name in names}
    return paths | {
        name: str(folder / name) for name in ("files", "guide", "store", "cache", "shards")
    }


def record(name: str, folder: Path, paths: dict[str, str]) -> dict[str, Any]:
    """Run a case below `folder` and return its numbers, ready for JSON."""
    case, output = CASES[name], folder / name
    overrides = [option.format(**paths) for option in case.overrides]
    overrides.append(f"output_dir={output}")
    if case.prepared_with:
        _prepare([option.format(**paths) for option in case.prepared_with], folder)
    for more in ((), *([case.resumed_with] if case.resumed_with else [])):
        if case.ranks == 1:
            run_train(*overrides, *more)
        else:
            run(train_as_rank, case.ranks, [*overrides, *more])
    rows = [row for row in metrics(output) if "train/loss" in row]
    steps = {column: [row[column] for row in rows] for column in COLUMNS}
    return {"steps": steps, "plan": _plan(output), "weights": _weights(output)}


def differences(
    old: dict[str, Any], new: dict[str, Any], *, exact: bool
) -> list[tuple[str, str, str]]:
    """Compare two records of one case: name, old and new value of what differs."""
    found = []
    if old["plan"] != new["plan"]:
        found.append(("plan", str(old["plan"]), str(new["plan"])))
    if exact and old["weights"]["digest"] != new["weights"]["digest"]:
        found.append(("weights", old["weights"]["digest"], new["weights"]["digest"]))
    for name, tolerance in TOLERANCES.items():
        before, after = ({**one["steps"], **one["weights"]}[name] for one in (old, new))
        if not _equal(before, after, tolerance=0.0 if exact else tolerance):
            found.append((name, str(before), str(after)))
    return found


def _equal(before: Sequence[float], after: Sequence[float], *, tolerance: float) -> bool:
    if len(before) != len(after) or not before:
        return False
    scale = max(map(abs, before))
    return all(abs(a - b) <= tolerance * scale for a, b in zip(before, after))


def _prepare(overrides: list[str], folder: Path) -> None:
    line = [sys.executable, str(ROOT / "scripts" / "prepare.py"), *TINY, *overrides]
    ended = run_command(line, folder=folder)
    assert ended.code == 0, ended.output


def _plan(output: Path) -> str | None:
    """Digest of all texts, keys and labels that the run's batches were planned from."""
    path = output / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return None  # shards, which their strategy reads
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    [fingerprint] = [
        part["fingerprint"]
        for part in saved.values()
        if isinstance(part, dict) and "fingerprint" in part
    ]
    content = json.dumps([fingerprint["content"], fingerprint["num_rows"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _weights(output: Path) -> dict[str, Any]:
    """Digest of the exported weights, and three numbers of them that can be compared with a tolerance."""
    digest, sums = hashlib.sha256(), np.zeros(3)
    for name, tensor in sorted(weights(output).items()):
        values = tensor.double().numpy().ravel()
        digest.update(name.encode() + tensor.numpy().tobytes())
        sums += [values.sum(), np.abs(values).sum(), values @ np.cos(np.arange(values.size))]
    return {"digest": digest.hexdigest(), "sums": sums.tolist()}
