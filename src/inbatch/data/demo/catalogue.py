"""A made-up product catalogue: offers of shops in five languages, and the titles they belong to.

A brand's *line* in a category has two models, each in two sizes and two colours: eight products. A
title names brand, series, noun, code, material, size and colour, always so and in English. An offer
is written by a shop: in its own language and order, with parts left out, sizes converted (``1,5 m``,
``150 cm``), words of advertising, and the code spelled in its own way (``NK-320/BK``, ``nk320bk``,
``NK 320``). A hard negative is the title of a product of the same line that differs in one thing,
which the offer tells: model, size or colour. Where an offer leaves such a thing out, the other
titles of its line are false negatives in a batch, which a guide finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as combinations
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inbatch.data.demo.words import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    LABELS,
    LANGUAGES,
    MATERIALS,
    NOISE,
    SERIES,
    UNITS,
    Category,
)
from inbatch.files import write_csv

LINE = 8  # products of a line: two models, each in two sizes and two colours
# How often an offer leaves a part out.
OMIT = {"brand": 0.15, "series": 0.35, "code": 0.5, "material": 0.4, "size": 0.25, "colour": 0.25}
TELLING = ("code", "material", "size", "colour")  # parts that tell products of a line apart


@dataclass(frozen=True, slots=True)
class Product:
    """One catalogue entry; each field is the catalogue's word."""

    category: Category
    brand: str
    series: str
    number: int
    material: str
    size: str
    colour: str

    @property
    def code(self) -> str:
        """As the catalogue writes it: ``NK-320/BK``."""
        return f"{_model_code(self.brand, self.number)}/{COLOURS[self.colour][0]}"

    def title(self) -> str:
        """The catalogue's wording."""
        noun, unit = self.category.nouns["en"][0], self.category.unit
        size = f"size {self.size}" if unit == "size" else f"{self.size} {unit}"
        head = f"{self.brand} {self.series} {noun} {self.code}"
        return f"{head}, {self.material}, {size}, {self.colour}"


def write_demo(
    folder: str | Path, *, num_lines: int = 292, offers_each: int = 2, seed: int = 0
) -> None:
    """Write the demo data; the same arguments give the same texts.

    All but an eighth of the lines go to the train files, with `offers_each` triplets for each product.

    - ``train-0.parquet``, ``train-1.parquet``: query, positive, negative, language
    - ``dev_triplets.csv``: query, positive, negative; one offer for each product of the other lines
    - ``retrieval/corpus.parquet`` (did, text), ``queries.parquet`` (qid, text), ``qrels.parquet``
      (qid, did, grade): the dev offers against the titles of all dev products and of as many train
      products. The grades are those of `grade`.
    """
    folder, rng = Path(folder), Random(seed)
    (folder / "retrieval").mkdir(parents=True, exist_ok=True)
    lines = _catalogue(rng, num_lines)
    dev, train = lines[: num_lines // 8], lines[num_lines // 8 :]
    triplets = [row for _ in range(offers_each) for row in _triplets(rng, train)]
    rng.shuffle(triplets)
    half = len(triplets) // 2
    _write_parquet(folder / "train-0.parquet", triplets[:half])
    _write_parquet(folder / "train-1.parquet", triplets[half:])
    dev_triplets = _triplets(rng, dev)
    columns = ("query", "positive", "negative")
    rows = ([row[name] for name in columns] for row in dev_triplets)
    write_csv(folder / "dev_triplets.csv", columns, rows)
    queries = [row["query"] for row in dev_triplets]
    _write_retrieval(folder / "retrieval", queries, dev, others=train[: len(dev)])


def grade(wanted: Product, found: Product) -> int:
    """How well a product answers an offer of another.

    3 if it is the same product, 2 if it is the same model in another size or colour, 1 if it is the
    other model of the line, else 0.
    """
    if wanted == found:
        return 3
    line = (wanted.category, wanted.brand, wanted.series)
    if line != (found.category, found.brand, found.series):
        return 0
    return 2 if wanted.number == found.number else 1


def _catalogue(rng: Random, num_lines: int) -> list[tuple[Product, ...]]:
    """Lines of products; no two lines share category, brand and series, no two models a code."""
    names = rng.sample(list(combinations(CATEGORIES, BRANDS, SERIES)), num_lines)
    codes: set[str] = set()
    return [_line(rng, *name, codes) for name in names]


def _line(
    rng: Random, category: Category, brand: str, series: str, codes: set[str]
) -> tuple[Product, ...]:
    sizes, colours = rng.sample(category.sizes, 2), rng.sample(list(COLOURS), 2)
    products: list[Product] = []
    for material in rng.sample(category.materials, 2):
        number = _number(rng, brand, codes)
        products += [
            Product(category, brand, series, number, material, size, colour)
            for size, colour in combinations(sizes, colours)
        ]
    return tuple(products)


def _number(rng: Random, brand: str, codes: set[str]) -> int:
    """A number that no model of a brand with these letters has; `codes` notes it."""
    while True:
        number = rng.randrange(100, 1000, 5)
        code = _model_code(brand, number)
        if code not in codes:
            codes.add(code)
            return number


def _model_code(brand: str, number: int) -> str:
    return f"{brand[0]}{brand[-1]}-{number}".upper()


def _triplets(rng: Random, lines: Sequence[tuple[Product, ...]]) -> list[dict[str, str]]:
    """One offer of each product, its title, and the title of a sibling that it rules out."""
    rows = []
    for line in lines:
        for product in line:
            language = rng.choice(LANGUAGES)
            query, told = _offer(rng, product, language)
            negative = rng.choice([p for p in line if _differs_in(product, p) in told])
            rows.append(
                {
                    "query": query,
                    "positive": product.title(),
                    "negative": negative.title(),
                    "language": language,
                }
            )
    return rows


def _differs_in(left: Product, right: Product) -> str | None:
    """ "model", "size" or "colour", where products of a line differ in this alone."""
    parts = {
        "model": left.number != right.number,
        "size": left.size != right.size,
        "colour": left.colour != right.colour,
    }
    different = [name for name, differs in parts.items() if differs]
    return different[0] if len(different) == 1 else None


def _offer(rng: Random, product: Product, language: str) -> tuple[str, set[str]]:
    """A shop's wording, and which of model, size and colour it tells."""
    kept = [part for part in OMIT if rng.random() >= OMIT[part]]
    if not set(TELLING) & set(kept):
        kept.append(rng.choice(TELLING))
    told: set[str] = {part for part in ("size", "colour") if part in kept}
    if {"code", "material"} & set(kept):
        told.add("model")
    nouns, colours = product.category.nouns[language], COLOURS[product.colour][1][language]
    head = [rng.choice(nouns)]
    head += [getattr(product, part) for part in ("brand", "series") if part in kept]
    wordings = {
        "code": _spelt_code(rng, product),
        "material": rng.choice(MATERIALS[product.material][language]),
        "size": _size(rng, product, language),
        "colour": rng.choice(colours),
    }
    details = [wordings[part] for part in TELLING if part in kept]
    rng.shuffle(head)
    rng.shuffle(details)
    parts = [*head, *details]
    for noise in rng.sample(NOISE[language], rng.choice((0, 0, 1, 2))):
        parts.insert(rng.choice((0, len(parts))), noise)
    text = rng.choice((" ", " ", ", ", " - ")).join((" ".join(parts[:2]), " ".join(parts[2:])))
    return rng.choice((text, text, text.lower(), text.upper())), told


def _spelt_code(rng: Random, product: Product) -> str:
    """With or without its colour, dash, slash and capitals."""
    code = rng.choice((product.code, _model_code(product.brand, product.number)))
    code = code.replace("-", rng.choice(("-", " ", ""))).replace(
        "/", rng.choice(("/", "-", " ", ""))
    )
    return rng.choice((code, code.lower()))


def _size(rng: Random, product: Product, language: str) -> str:
    """A label, or a measure in one of its units, with the decimal sign of the language."""
    unit = product.category.unit
    if unit == "size":
        return f"{rng.choice(LABELS[language])} {product.size}"
    spellings, conversion = UNITS[unit]
    value, spelling = product.size, rng.choice(spellings)
    if conversion is not None and rng.random() < 0.3:
        factor, spelling = conversion
        value = f"{float(value) * factor:.0f}"
    if language != "en":
        value = value.replace(".", ",")
    return f"{value}{rng.choice((' ', ''))}{spelling}"


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def _write_retrieval(
    folder: Path,
    queries: Sequence[str],
    dev: Sequence[tuple[Product, ...]],
    *,
    others: Sequence[tuple[Product, ...]],
) -> None:
    """Queries are those of the dev products in order; only a product's own line is relevant."""
    titles = [product.title() for line in (*dev, *others) for product in line]
    corpus = [{"did": f"d{i}", "text": title} for i, title in enumerate(titles)]
    qrels = [
        {"qid": f"q{start + i}", "did": f"d{start + j}", "grade": grade(wanted, found)}
        for start, line in zip(range(0, LINE * len(dev), LINE), dev)
        for i, wanted in enumerate(line)
        for j, found in enumerate(line)
    ]
    _write_parquet(folder / "corpus.parquet", corpus)
    _write_parquet(
        folder / "queries.parquet", [{"qid": f"q{i}", "text": t} for i, t in enumerate(queries)]
    )
    _write_parquet(folder / "qrels.parquet", qrels)
