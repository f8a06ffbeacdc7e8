"""A WordPiece vocabulary learned from texts, for encoders that start from a configuration only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

# [PAD] is 1: MPNet fixes its padding index to 1, and the other architectures take the tokenizer's.
SPECIAL_TOKENS = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
_PREFIX = "##"
_MAX_CHARACTERS = 1000


def train_vocabulary(
    texts: Iterable[str], *, vocab_size: int, min_frequency: int, lowercase: bool
) -> dict[str, int]:
    """Learn pieces and their ids, special tokens first; every process learns the same from the same texts.

    The trainer numbers pieces like ``##a`` in the order of a randomly seeded hash table and breaks
    ties by number, so ranks would learn different vocabularies. Naming those pieces beforehand
    fixes the numbers; dropping rare characters beforehand fixes which of them are kept.

    Args:
        texts: read once and held in memory.
        vocab_size: upper bound; raised where the characters of the texts need more.
        min_frequency: occurrences that a piece must have.
        lowercase: lower-case the texts.
    """
    # Accents stay: stripping them splits Hangul and changes the meaning of words in many languages.
    normalizer = BertNormalizer(lowercase=lowercase, strip_accents=False)
    lines = [normalizer.normalize_str(text) for text in texts]
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    kept = sorted(c for c in ranked[:_MAX_CHARACTERS] if not c.isspace())
    rare = str.maketrans(dict.fromkeys(ranked[_MAX_CHARACTERS:]))
    fixed = [*SPECIAL_TOKENS, *kept, *(_PREFIX + character for character in kept)]

    tokenizer = Tokenizer(WordPiece(unk_token=SPECIAL_TOKENS[0]))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=max(vocab_size, len(fixed)),
        min_frequency=min_frequency,
        special_tokens=fixed,
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator((line.translate(rare) for line in lines), trainer)
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
