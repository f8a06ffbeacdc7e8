"""A guide that embeds each text once. Shape letters: n texts, D dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_AT_A_TIME = 64  # texts of a forward


class GuideStore:
    """Embeddings of a frozen model by the student's token ids of a text, in memory, in float32.

    The guide reads what the student's tokens say, as in sentence-transformers: they are decoded and tokenized
    anew, or passed on where both have one vocabulary and the guide reads texts as long.

    Args:
        model: the student, with its tokenizer.
        guide: a SentenceTransformer; it is never trained.
        most_texts: how many are held; others are embedded in each step.
    """

    def __init__(self, model: Any, guide: Any, *, most_texts: int = 2_000_000) -> None:
        self._tokenizer = model.tokenizer
        self._most = most_texts
        shared = model.tokenizer.get_vocab() == guide.tokenizer.get_vocab()
        self._passes_on = shared and (guide.max_seq_length or 0) >= (model.max_seq_length or 0)
        self._place: dict[bytes, int] = {}
        self._rows: list[np.ndarray] = []

    def __call__(self, guide: nn.Module, tokens: Sequence[list[int]]) -> Tensor:
        """Embeddings [n, D] of texts by their token ids, on the guide's device."""
        keys = [np.asarray(ids, dtype=np.int32).tobytes() for ids in tokens]
        absent = {key: ids for key, ids in zip(keys, tokens) if key not in self._place}
        fresh = dict(zip(absent, self._embedded(guide, [*absent.values()])))
        for key, row in fresh.items():
            if len(self._rows) < self._most:
                self._place[key] = len(self._rows)
                self._rows.append(row)
        found = [fresh[key] if key in fresh else self._rows[self._place[key]] for key in keys]
        device = next(guide.parameters()).device
        return torch.from_numpy(np.stack(found)).to(device)

    def _embedded(self, guide: Any, tokens: list[list[int]]) -> list[np.ndarray]:
        order = sorted(range(len(tokens)), key=lambda place: -len(tokens[place]))
        rows: list[np.ndarray] = [np.empty(0)] * len(tokens)
        device = next(guide.parameters()).device
        was_training = guide.training
        guide.eval()
        with torch.no_grad():
            for start in range(0, len(order), _AT_A_TIME):
                part = order[start : start + _AT_A_TIME]
                features = self._features(guide, [tokens[place] for place in part])
                features = {
                    k: v.to(device) if isinstance(v, Tensor) else v for k, v in features.items()
                }
                embedded = guide(features)["sentence_embedding"].float().cpu().numpy()
                for place, row in zip(part, embedded, strict=True):
                    rows[place] = row
        guide.train(was_training)
        return rows

    def _features(self, guide: Any, tokens: list[list[int]]) -> dict[str, Any]:
        if self._passes_on:
            return dict(self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt"))
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        preprocess = getattr(guide, "preprocess", None) or guide.tokenize
        return dict(preprocess(texts))
