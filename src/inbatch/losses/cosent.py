"""CoSENT: pairs ranked by similarity as their labels rank them.

Shape letters: G global rows, N pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_inputs, check_number
from inbatch.losses.pairs import pair_cosine


def cosent(scores_N: Tensor, labels_N: Tensor, *, temperature: float) -> Tensor:
    """``log(1 + sum over pairs with y_i < y_j of exp((s_i - s_j) / temperature))``.

    Time O(N log N) and memory O(N): sorted by label, the pairs above a given one are a suffix, so
    that a running log-sum-exp of -s from the end holds every inner sum. Zero where no two labels
    differ.
    """
    labels_N, order_N = labels_N.sort()
    logits_N = scores_N[order_N] / temperature
    suffix_N = torch.logcumsumexp(-logits_N.flip(0), dim=0).flip(0)
    nothing = logits_N.new_full((1,), -torch.inf)
    above_N = torch.searchsorted(labels_N, labels_N, right=True)  # N where no label is larger
    terms_N = logits_N + torch.cat((suffix_N, nothing))[above_N]
    return torch.logsumexp(torch.cat((logits_N.new_zeros(1), terms_N)), dim=0)


_PUBLISHED = Published(
    "CoSENTLoss",
    bibtex="""@article{huang2024cosent,
    title = {CoSENT: Consistent Sentence Embedding via Similarity Ranking},
    author = {Huang, Xiang and Peng, Hao and Zou, Dongcheng and Liu, Zhiwei and Li, Jianxin and
        Liu, Kay and Wu, Jia and Su, Jianlin and Yu, Philip S.},
    journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
    year = {2024},
    doi = {10.1109/TASLP.2024.3402087}
}""",
)


@dataclass(frozen=True)
class CoSENT(Loss):
    """Log-sum-exp over all wrongly (or narrowly) ranked pairs of pairs in the global batch.

    ``log(1 + sum_{y_i < y_j} exp((cos_i - cos_j) / temperature))``. Only the order of labels
    counts. Equals sentence-transformers' CoSENTLoss of the global batch with
    ``scale = 1 / temperature``. Reference: Su 2022, https://kexue.fm/archives/8847.
    """

    temperature: float = 0.05

    scope: ClassVar[Literal["global"]] = "global"
    needs_labels: ClassVar[bool] = True
    max_columns: ClassVar[int | None] = 2
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """One value of the global batch. Raises ConfigError unless pairs with labels."""
        check_inputs(self, inputs)
        assert inputs.labels is not None
        cosine_G = pair_cosine(*inputs.columns)
        loss = cosent(cosine_G, inputs.labels, temperature=self.temperature)
        return LossOutput(loss, {"mean_similarity": cosine_G.detach().mean()})
