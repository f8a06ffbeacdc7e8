"""A made-up product catalogue: shop offers (queries) and the catalogue titles they belong to.

Every product has a brand, a series, a model number, two attributes of its category and a colour. A
title names them in one order and one wording. An offer shuffles them, leaves some out, misspells,
and writes most of them in other words (``Norvik`` as ``bzt``, ``wireless`` as ``cordless``), so
that matching takes the learned meaning of some 300 words, not their spelling. A hard negative is
the title of a product that differs in one thing, which the offer says in other words. The products
of the dev files occur in no train file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BRAND_HEADS = ("Nor", "Sol", "Ten", "Kum", "Hal", "Per", "Oak", "Zen", "Bel", "Cran", "Dus", "Fjor")
BRAND_TAILS = ("vik", "ara", "brook", "ori", "vard", "idot", "line", "taro", "mira", "worth")
SERIES = (
    *("Aero", "Bolt", "Cirrus", "Delta", "Ember", "Flux", "Glide", "Haven"),
    *("Iris", "Jolt", "Karma", "Lotus", "Metro", "Nova", "Orbit", "Pulse"),
)
MODELS = tuple(str(number) for number in range(110, 500, 10))
COLOURS = {
    "graphite": ("dark grey", "gunmetal"), "ivory": ("cream", "off white"),
    "cobalt": ("navy", "deep blue"), "scarlet": ("crimson", "bright red"),
    "emerald": ("moss", "forest green"), "amber": ("honey", "golden yellow"),
    "onyx": ("jet", "pitch black"), "copper": ("bronze", "rust brown"),
    "lilac": ("lavender", "pale violet"), "silver": ("chrome", "metallic"),
    "coral": ("salmon", "warm pink"), "teal": ("petrol", "sea green"),
    "sand": ("beige", "dune"), "plum": ("aubergine", "dark purple"),
    "sky": ("azure", "baby blue"), "mint": ("pistachio", "light green"),
    "rose": ("blush", "soft pink"), "mocha": ("coffee", "chocolate"),
    "pearl": ("nacre", "shiny white"), "ruby": ("garnet", "wine red"),
}  # fmt: skip
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "link": {"wireless": ("cordless", "bluetooth"), "wired": ("corded", "usb plug")},
    "storage": {
        "64 GB": ("64gb", "64 gigs"), "128 GB": ("128gb", "128 gigs"),
        "256 GB": ("256gb", "256 gigs"), "1 TB": ("1tb", "1000 gigs"),
    },
    "volume": {
        "half litre": ("500 ml", "50 cl"), "one litre": ("1000 ml", "100 cl"),
        "two litre": ("2000 ml", "200 cl"), "three litre": ("3000 ml", "300 cl"),
    },
    "length": {
        "one metre": ("100 cm", "1m"), "two metre": ("200 cm", "2m"),
        "three metre": ("300 cm", "3m"), "five metre": ("500 cm", "5m"),
    },
    "size": {
        "small": ("size s", "compact"), "medium": ("size m", "regular"),
        "large": ("size l", "big"), "extra large": ("size xl", "oversize"),
    },
    "power": {
        "20 watt": ("20w", "low power"), "45 watt": ("45w", "mid power"),
        "65 watt": ("65w", "high power"), "100 watt": ("100w", "max power"),
    },
    "material": {
        "leather": ("cowhide", "nappa"), "steel": ("inox", "stainless"),
        "canvas": ("cotton duck", "woven"), "bamboo": ("wooden", "natural cane"),
    },
    "pack": {
        "single": ("1 pc", "one piece"), "pack of 2": ("duo", "twin set"),
        "pack of 4": ("quad", "family set"), "pack of 10": ("bulk", "value box"),
    },
}  # fmt: skip
CATEGORIES: dict[str, tuple[tuple[str, ...], tuple[str, str]]] = {
    "keyboard": (("keypad", "typing board"), ("link", "size")),
    "phone case": (("cover", "handset shell"), ("material", "pack")),
    "memory card": (("flash storage", "sd media"), ("storage", "pack")),
    "charging cable": (("power lead", "charger cord"), ("length", "pack")),
    "wall charger": (("mains adapter", "power brick"), ("power", "pack")),
    "water bottle": (("flask", "canteen"), ("volume", "material")),
    "backpack": (("rucksack", "daypack"), ("size", "material")),
    "headphones": (("headset", "earphones"), ("link", "size")),
    "desk lamp": (("reading light", "table lantern"), ("power", "material")),
    "travel mug": (("thermo cup", "tumbler"), ("volume", "pack")),
    "speaker": (("sound box", "boombox"), ("power", "link")),
    "hard drive": (("disk", "backup storage"), ("storage", "link")),
}
NOISE = (
    *(
        "new",
        "original",
        "oem",
        "sale",
        "top offer",
        "free shipping",
        "in stock",
        "2 years warranty",
    ),
    *("best price", "open box", "fast delivery", "gift idea"),
)
BRAND_NAMES = tuple(head + tail for head in BRAND_HEADS for tail in BRAND_TAILS)
SHORT_TAILS = ("zt", "kx", "qv", "wd", "gm", "jp", "fn", "bh", "rl", "cs")
SHORT_NAMES = tuple(head + tail for head in "bdghjkmnprtz" for tail in SHORT_TAILS)
# 47 is coprime to 120: every brand gets a short name that must be learned, as it cannot be guessed.
BRANDS = {name: SHORT_NAMES[47 * i % 120] for i, name in enumerate(BRAND_NAMES)}
PARTS = ("brand", "series", "model", "first", "second", "colour")
# How often an offer leaves a part out, says it in other words, and misspells a long word.
OMIT = {"brand": 0.1, "series": 0.3, "model": 0.1, "first": 0.2, "second": 0.2, "colour": 0.2}
REWORD = 0.85
TYPO = 0.15


@dataclass(frozen=True, slots=True)
class Product:
    """One catalogue entry; each field is the catalogue's word."""

    category: str
    brand: str
    series: str
    model: str
    first: str  # values of the category's two kinds of attribute
    second: str
    colour: str

    def title(self) -> str:
        """The catalogue's wording."""
        head = f"{self.brand} {self.series} {self.model} {self.category}"
        return f"{head}, {self.first}, {self.second}, {self.colour}"


def write_demo(
    folder: str | Path, *, num_products: int = 2000, offers_each: int = 4, seed: int = 0
) -> None:
    """Write the demo data; the same arguments give the same texts.

    Four fifths of the products go to the train files, as `offers_each` triplets each.

    - ``train-0.parquet``, ``train-1.parquet``: query, positive, negative, category
    - ``dev_triplets.csv``: query, positive, negative
    - ``scored_train.jsonl``, ``scored_dev.jsonl``: sentence1, sentence2, score (see `score`)
    - ``retrieval/corpus.parquet`` (did, text), ``queries.parquet`` (qid, text), ``qrels.parquet``
      (qid, did, grade): dev offers against all titles, with the hard negatives of the dev offers
    """
    folder, rng = Path(folder), Random(seed)
    (folder / "retrieval").mkdir(parents=True, exist_ok=True)
    products = _catalogue(rng, num_products)
    split = num_products * 4 // 5
    train, dev = products[:split], products[split:]
    triplets = list(_triplets(rng, train, offers_each))
    rng.shuffle(triplets)
    half = len(triplets) // 2
    _write_parquet(folder / "train-0.parquet", triplets[:half])
    _write_parquet(folder / "train-1.parquet", triplets[half:])
    dev_triplets = list(_triplets(rng, dev, 2))
    _write_csv(folder / "dev_triplets.csv", dev_triplets)
    _write_jsonl(folder / "scored_train.jsonl", _scored(rng, train, len(train)))
    _write_jsonl(folder / "scored_dev.jsonl", _scored(rng, dev, len(dev)))
    _write_retrieval(folder / "retrieval", dev_triplets, [product.title() for product in train])


def score(left: Product, right: Product) -> float:
    """Share of the six parts that are equal; 0 for products of different categories."""
    if left.category != right.category:
        return 0.0
    return sum(getattr(left, part) == getattr(right, part) for part in PARTS) / len(PARTS)


def _catalogue(rng: Random, count: int) -> list[Product]:
    products: dict[Product, None] = {}
    while len(products) < count:
        category = rng.choice(list(CATEGORIES))
        values = {part: rng.choice(_values(category, part)) for part in PARTS}
        products[Product(category, **values)] = None
    return list(products)


def _values(category: str, part: str) -> Sequence[str]:
    """All words that a part of a product of this category can take."""
    if part in ("first", "second"):
        return list(KINDS[CATEGORIES[category][1][part == "second"]])
    return {"brand": list(BRANDS), "series": SERIES, "model": MODELS, "colour": list(COLOURS)}[part]


def _sibling(rng: Random, product: Product, part: str) -> Product:
    """The product with another value of one part."""
    others = [v for v in _values(product.category, part) if v != getattr(product, part)]
    return replace(product, **{part: rng.choice(others)})


def _offer(rng: Random, product: Product) -> tuple[str, list[str]]:
    """A shop's wording, and the parts that it says in other words."""
    words, reworded = [], []
    for part in PARTS:
        if rng.random() < OMIT[part]:
            continue
        value: str = getattr(product, part)
        others = _synonyms(product, part)
        if others and rng.random() < REWORD:
            value = rng.choice(others)
            reworded.append(part)
        words.append(value)
    nouns = CATEGORIES[product.category][0]
    words.append(rng.choice(nouns) if rng.random() < REWORD else product.category)
    words += rng.sample(NOISE, rng.choice((0, 0, 1, 2)))
    rng.shuffle(words)
    letters = " ".join(words).lower().split()
    return " ".join(_misspelt(rng, word) for word in letters), reworded


def _misspelt(rng: Random, word: str) -> str:
    """Now and then a long word loses a letter."""
    if len(word) < 5 or rng.random() >= TYPO:
        return word
    place = rng.randrange(1, len(word))
    return word[:place] + word[place + 1 :]


def _synonyms(product: Product, part: str) -> Sequence[str]:
    """What shops call the value of a part; nothing for series and model."""
    value = getattr(product, part)
    if part == "brand":
        return [BRANDS[value]]
    if part == "colour":
        return COLOURS[value]
    if part in ("first", "second"):
        return KINDS[CATEGORIES[product.category][1][part == "second"]][value]
    return ()


def _triplets(
    rng: Random, products: Sequence[Product], offers_each: int
) -> Iterator[dict[str, str]]:
    for product in products:
        for _ in range(offers_each):
            query, reworded = _offer(rng, product)
            negative = _sibling(rng, product, rng.choice(reworded or ["model"]))
            yield {
                "query": query,
                "positive": product.title(),
                "negative": negative.title(),
                "category": product.category,
            }


def _scored(rng: Random, products: Sequence[Product], count: int) -> Iterator[dict[str, Any]]:
    """Offers against titles that differ in none to all of the parts."""
    for _ in range(count):
        left = right = rng.choice(products)
        for part in rng.sample(PARTS, rng.randint(0, len(PARTS))):
            right = _sibling(rng, right, part)
        if rng.random() < 0.1:
            right = rng.choice(products)
        query, _ = _offer(rng, left)
        yield {
            "sentence1": query,
            "sentence2": right.title(),
            "score": round(score(left, right), 4),
        }


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("query", "positive", "negative"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _write_retrieval(folder: Path, triplets: list[dict[str, str]], others: list[str]) -> None:
    titles = [row[key] for row in triplets for key in ("positive", "negative")] + others
    dids = {title: f"d{i}" for i, title in enumerate(dict.fromkeys(titles))}
    queries = dict.fromkeys((row["query"], row["positive"]) for row in triplets)
    qids = {query: f"q{i}" for i, query in enumerate(dict.fromkeys(q for q, _ in queries))}
    qrels = [{"qid": qids[q], "did": dids[title], "grade": 1} for q, title in queries]
    _write_parquet(folder / "corpus.parquet", [{"did": d, "text": t} for t, d in dids.items()])
    _write_parquet(folder / "queries.parquet", [{"qid": q, "text": t} for t, q in qids.items()])
    _write_parquet(folder / "qrels.parquet", qrels)
