"""Which of the kept candidates become negatives.

What is drawn is a function of seed, query and document alone, so that ranks, blocks and resumed runs agree,
and a document that a larger corpus adds changes no other's number. Both draws are the Gumbel top-k (Kool,
van Hoof and Welling 2019, arXiv:1903.06059): the n largest of ``logit + g``, with g from Gumbel's
distribution, are n draws without replacement by the softmax of the logits. `random` has equal logits,
`softmax` those of the scores.

Shape letters: Q queries of a block, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from inbatch.data.plan.permutation import derive_key, keyed_hash, mix64


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How negatives are chosen.

    num_negatives: most of a query.
    how: "top" takes those with the highest scores, "random" any, "softmax" draws by ``exp(score /
        temperature)``.
    temperature: of "softmax".
    seed: of the draws.
    """

    num_negatives: int
    how: Literal["top", "random", "softmax"] = "top"
    temperature: float = 0.05
    seed: int = 42

    def choose(
        self,
        kept_QK: np.ndarray,
        scores_QK: np.ndarray,
        query_hashes_Q: np.ndarray,
        document_hashes_QK: np.ndarray,
    ) -> np.ndarray:
        """The chosen ones among the kept, bool [Q, K]; fewer than `num_negatives` where not as many are kept.

        Args:
            kept_QK: candidates in the order of their scores, best first.
            scores_QK: float32; any number where nothing is kept.
            query_hashes_Q, document_hashes_QK: uint64, of the texts.
        """
        if self.how == "top":
            return kept_QK & (kept_QK.cumsum(axis=1) <= self.num_negatives)
        worth_QK = self._gumbel(query_hashes_Q, document_hashes_QK)
        if self.how == "softmax":
            worth_QK += np.where(kept_QK, scores_QK, 0).astype(np.float64) / self.temperature
        worth_QK[~kept_QK] = -np.inf
        # Stable, so that equal numbers, should there be any, are told apart by their order.
        best_QK = np.argsort(-worth_QK, axis=1, kind="stable")[:, : self.num_negatives]
        chosen_QK = np.zeros_like(kept_QK)
        np.put_along_axis(chosen_QK, best_QK, True, axis=1)
        return chosen_QK & kept_QK

    def _gumbel(self, queries_Q: np.ndarray, documents_QK: np.ndarray) -> np.ndarray:
        key = derive_key(self.seed, "mined negatives")
        mixed_QK = keyed_hash(mix64(queries_Q)[:, None] ^ documents_QK, key=key)
        uniform_QK = (
            (mixed_QK >> np.uint64(11)).astype(np.float64) + 0.5
        ) * 2.0**-53  # inside (0, 1)
        return np.asarray(-np.log(-np.log(uniform_QK)))
