"""Which texts of the global batch are candidates of a row, by direction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from inbatch.errors import ConfigError
from inbatch.losses.checks import check_choice
from inbatch.losses.softmax.panels import Block

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")

# Where no text is a row's own, two directions between queries and documents are one.
PairDirection = Literal["query_to_doc", "query_to_query", "doc_to_doc"]
PAIR_DIRECTIONS: tuple[PairDirection, ...] = ("query_to_doc", "query_to_query", "doc_to_doc")


def check_directions(directions: Sequence[Direction]) -> None:
    """Raise ConfigError unless they are distinct and include the one with the positive."""
    for direction in directions:
        check_choice("directions", direction, DIRECTIONS)
    if "query_to_doc" not in directions:
        raise ConfigError(
            "directions",
            "lacks the direction with the positive",
            "add query_to_doc",
            value=list(directions),
        )
    if len(set(directions)) != len(directions):
        raise ConfigError(
            "directions",
            "names a direction twice",
            "name each once",
            value=list(directions),
        )


def further_blocks(directions: Collection[Direction], num_columns: int) -> list[Block]:
    """The blocks of directions other than query_to_doc in a softmax of all directions."""
    found = []
    if "query_to_query" in directions:
        found.append(Block(0, 0, "masked"))
    if "doc_to_query" in directions:
        found.append(Block(1, 0, "plain"))
    if "doc_to_doc" in directions:
        found.extend(Block(1, k, "masked") for k in range(1, num_columns))
    return found
