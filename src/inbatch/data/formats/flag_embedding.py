"""FlagEmbedding: ``{"query": str, "pos": [str], "neg": [str], "pos_scores": [..], "prompt": str}``.

https://github.com/FlagOpen/FlagEmbedding/tree/master/examples/finetune/embedder
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from inbatch.data.formats.base import Head


@final
@dataclass(frozen=True)
class FlagEmbedding:
    """Queries with lists of positives (pos) and negatives (neg), and scores of a teacher where there are any.

    prompt: "use" takes the prompt of the records, which has to be one, for that of queries; "ignore" not.
    """

    prompt: Literal["use", "ignore"] = "use"

    def recognise(self, head: Head) -> str:
        """By the columns query and pos, of which pos holds lists."""
        if head.has("query", "pos") and head.holds("pos", list):
            return "its records have query and a list pos"
        return ""

    def prompt_column(self, names: Sequence[str]) -> str | None:
        """prompt."""
        return "prompt" if self.prompt == "use" and "prompt" in names else None
