"""Made-up product search triplets and random models, for the benchmarks."""

from __future__ import annotations

import random
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from inbatch.encoder import build_encoder
from inbatch.encoder.resolve import resolve_directory

COLUMNS = ("query", "positive", "negative")
BRANDS = ["acme", "nova", "delta", "orion", "zenith", "atlas", "lumen", "vertex", "polar", "cedar"]
THINGS = ["phone case", "usb cable", "desk lamp", "water bottle", "running shoes", "hand cream"]
FACTS = ["black", "blue", "red", "steel", "cotton", "large", "small", "wireless", "with strap"]
FACTS += ["for home", "pack of 2", "12 inch", "500 ml", "soft", "new", "classic", "light", "daily"]
# Mean and spread of tokens; titles vary so that batches of 32 in random order pad by a quarter.
QUERY_TOKENS, TITLE_TOKENS = (9.0, 2.0), (32.5, 5.5)
TOKENS_PER_FACT = 1.27


def make_triplets(num_rows: int) -> dict[str, list[str]]:
    """Distinct texts by column; in wordpieces, means of about 9, 33 and 33 tokens."""
    rng = random.Random(0)
    columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for row in range(num_rows):
        thing, other = rng.sample(THINGS, 2)
        columns["query"].append(_text(rng, thing, row, QUERY_TOKENS))
        columns["positive"].append(_text(rng, thing, row, TITLE_TOKENS))
        columns["negative"].append(_text(rng, other, row, TITLE_TOKENS))
    return columns


def with_repeats(triplets: dict[str, list[str]], share: float) -> dict[str, list[str]]:
    """The same, but for a share of the negatives, which are copies of 16 popular ones."""
    rng = random.Random(1)
    popular = triplets["negative"][:16]
    negatives = [
        rng.choice(popular) if rng.random() < share else text for text in triplets["negative"]
    ]
    return {**triplets, "negative": negatives}


def _text(rng: random.Random, thing: str, row: int, tokens: tuple[float, float]) -> str:
    fixed = 7.2  # special tokens, thing, brand, number
    count = max(0, round((rng.gauss(*tokens) - fixed) / TOKENS_PER_FACT))
    return " ".join([rng.choice(BRANDS), thing, str(row), *rng.choices(FACTS, k=count)])


def model_directory(name: str, folder: Path) -> str:
    """A directory for a model's name; ``random:12x768`` writes a BERT of 12 layers, width 768.

    The random model has all-MiniLM-L6-v2's tokenizer, mean pooling and the usual dropout.
    """
    if not name.startswith("random:"):
        return str(resolve_directory(name))
    layers, width = map(int, name.removeprefix("random:").split("x"))
    path = folder / name.replace(":", "_")
    if not path.exists():
        torch.manual_seed(0)
        config = {"model_type": "bert", "num_hidden_layers": layers, "hidden_size": width}
        config |= {"intermediate_size": 4 * width, "num_attention_heads": max(1, width // 64)}
        tokenizer = {"train": {"vocab_size": 2000}}
        texts = [text for column in make_triplets(500).values() for text in column]
        build_encoder(config=config, tokenizer=tokenizer, texts=lambda: texts).save(path)
    return str(path)


def as_lists(triplets: dict[str, list[str]]) -> dict[str, list[Any]]:
    """The same queries and documents in lists: of four rows one has two positives, two have no negative."""
    lengths = cycle([(1, 0), (2, 2), (1, 1), (1, 0)])
    pairs = zip(*(triplets[name] for name in COLUMNS[1:]))
    documents = iter(text for pair in pairs for text in pair)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for query, of_row in zip(triplets[COLUMNS[0]], lengths):
        columns[COLUMNS[0]].append(query)
        for name, number in zip(COLUMNS[1:], of_row):
            columns[name].append(list(islice(documents, number)))
    return columns
