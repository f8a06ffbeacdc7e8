"""Unicode scripts of texts, by the names of their letters: cheap, and a hint at the languages."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

LEAST_SHARE = 0.01  # of the letters; rarer scripts are taken together
REST = "other"
_HAN = ("CJK", "KANGXI")
_KANA = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")
_PREFIXES = ("FULLWIDTH ", "HALFWIDTH ", "MATHEMATICAL ", "MODIFIER LETTER ")


def script_shares(texts: Iterable[str]) -> dict[str, float]:
    """Share of the letters of texts by script, the largest first; empty where there are no letters."""
    letters = Counter(c for text in texts for c in text if c.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[script_of(letter)] += count
    total = scripts.total()
    shares = {script: count / total for script, count in scripts.most_common()}
    rest = sum(share for script, share in shares.items() if share < LEAST_SHARE or script == REST)
    kept = {name: s for name, s in shares.items() if s >= LEAST_SHARE and name != REST}
    return {**kept, REST: rest} if rest >= LEAST_SHARE else kept


@lru_cache(maxsize=1 << 16)
def script_of(letter: str) -> str:
    """Latin, Cyrillic, Han, Kana, ...; `REST` for a letter without a name."""
    name = unicodedata.name(letter, "")
    if name.startswith(_KANA):
        return "Kana"
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if name.startswith(_HAN):
        return "Han"
    return name.split(" ")[0].capitalize() or REST
