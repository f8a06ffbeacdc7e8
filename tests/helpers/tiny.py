"""Tiny models and texts for tests; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = [
    *["red", "green", "blue", "black", "white", "silver", "gold", "pink", "grey", "brown"],
    *[
        "phone",
        "case",
        "charger",
        "cable",
        "screen",
        "battery",
        "laptop",
        "mouse",
        "keyboard",
        "camera",
    ],
    *["small", "large", "mini", "pro", "max", "plus", "ultra", "lite", "classic", "sport"],
    *["2020", "2021", "2022", "64gb", "128gb", "256gb", "5g", "usb", "wireless", "leather"],
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_tokenizer(extra: list[str] | None = None) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over WORDS with BERT's special tokens."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *WORDS, *(extra or [])])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def save_tiny_bert(path: Path, *, dropout: float = 0.0, seed: int = 0, hidden: int = 32) -> Path:
    """Write a random 2-layer BERT and its tokenizer to `path`."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def tiny_texts(num: int, *, seed: int = 0, min_words: int = 2, max_words: int = 8) -> list[str]:
    """Random word strings, distinct with high probability."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(num):
        length = int(torch.randint(min_words, max_words + 1, (1,), generator=generator))
        picks = torch.randint(0, len(WORDS), (length,), generator=generator)
        texts.append(" ".join(WORDS[int(i)] for i in picks))
    return texts
