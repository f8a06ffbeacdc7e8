"""FlagEmbedding: ``{"query": str, "pos": [str], "neg": [str], "pos_scores": [..], "neg_scores": [..], "prompt": str}``.

https://github.com/FlagOpen/FlagEmbedding/tree/master/examples/finetune/embedder
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from inbatch.data.formats.base import Head

_ROLES = {
    "query": "query",
    "positive": "pos",
    "negatives": "neg",
    "positive_score": "pos_scores",
    "negative_score": "neg_scores",
}


@final
@dataclass(frozen=True)
class FlagEmbedding:
    """Queries with lists of positives (pos) and negatives (neg), and scores of a teacher where there are any.

    prompt: "use" takes the prompt of the records, which has to be one, for the queries' prompt; "ignore" does not.
    """

    prompt: Literal["use", "ignore"] = "use"

    def recognise(self, head: Head) -> str:
        """By the columns query and pos, of which pos holds lists."""
        if head.has("query", "pos") and head.holds("pos", list):
            return "its records have query and a list pos"
        return ""

    def columns(self, names: Sequence[str]) -> dict[str, object]:
        """pos and neg are the positives and the negatives."""
        return {role: name for role, name in _ROLES.items() if name in names}

    def prompt_column(self, names: Sequence[str]) -> str | None:
        """prompt."""
        return "prompt" if self.prompt == "use" and "prompt" in names else None
