"""TextTokenizer against sentence-transformers' preprocessing, and the trained tokenizer."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from sentence_transformers.base.modules import Transformer
from transformers import AutoTokenizer

from helpers.tiny import SPECIAL, WORDS, tiny_texts, tiny_tokenizer
from inbatch.encoder.tokenize import TextTokenizer, load_tokenizer, train_wordpiece
from inbatch.errors import ConfigError

TRAIN_IN_PROCESS = """
import json
from inbatch.encoder.wordpiece import train_vocabulary
words = ["".join(chr(97 + (i * k) % 26) for k in range(9)) for i in range(300)]
texts = [f"rot grün 삼성 갤럭시 phone {word}" for word in words]
print(json.dumps(train_vocabulary(texts, vocab_size=250, min_frequency=1, lowercase=True)))
"""


@pytest.fixture(scope="module")
def oracle(tiny_bert: Path) -> Transformer:
    return Transformer(str(tiny_bert), max_seq_length=12)


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> TextTokenizer:
    return TextTokenizer(load_tokenizer(tiny_bert), max_length=12)


@pytest.mark.parametrize("prompt", ["", "red phone: ", "usb", "unknown words all over " * 5])
def test_equals_sentence_transformers(
    tokenizer: TextTokenizer, oracle: Transformer, prompt: str
) -> None:
    texts = [*tiny_texts(20, max_words=20), "", "  Red   PHONE [SEP] x", "ü"]
    ids, prompt_length = tokenizer(texts, prompt)
    features = oracle.preprocess(texts, prompt=prompt)
    rows = zip(features["input_ids"], features["attention_mask"], strict=True)
    assert ids == [row[mask == 1].tolist() for row, mask in rows]
    assert prompt_length == features.get("prompt_length", 0)
    assert max(map(len, ids)) == 12


def test_prompt_length_counts_the_leading_token(tokenizer: TextTokenizer) -> None:
    ids, prompt_length = tokenizer(["case"], "red phone ")
    words = [*SPECIAL, *WORDS]
    assert [words[i] for i in ids[0]] == ["[CLS]", "red", "phone", "case", "[SEP]"]
    assert prompt_length == 3


def test_no_text(tokenizer: TextTokenizer) -> None:
    assert tokenizer([]) == ([], 0)
    assert tokenizer([], "red ") == ([], 2)


def test_lower_case(tmp_path: Path) -> None:
    hf = tiny_tokenizer()
    hf.backend_tokenizer.normalizer = None
    assert TextTokenizer(hf, 12)(["RED"]) != TextTokenizer(hf, 12)(["red"])
    hf.save_pretrained(tmp_path)
    lower = TextTokenizer(load_tokenizer(tmp_path), 12, do_lower_case=True)
    assert lower(["RED"]) == lower(["red"]) == TextTokenizer(hf, 12)(["red"])


def test_pickles(tokenizer: TextTokenizer) -> None:
    texts = tiny_texts(5)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again(texts, "red ") == tokenizer(texts, "red ")
    assert (again.pad_id, again.padding_side, again.max_length) == (0, "right", 12)


def test_refuses_what_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_length=2"):
        TextTokenizer(tiny_tokenizer(), 2)
    hf = tiny_tokenizer()
    hf.pad_token = None
    with pytest.raises(ConfigError, match="padding token"):
        TextTokenizer(hf, 12)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_trained_tokenizer_survives_saving(tmp_path: Path) -> None:
    texts = ["red phone 삼성", "Café crème, red usb cable"] * 3
    hf = train_wordpiece(texts, {"vocab_size": 90})
    hf.save_pretrained(tmp_path)
    ids = hf(["Red café 삼성 phone?"])["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path)(["Red café 삼성 phone?"])["input_ids"] == ids
    pieces = hf.convert_ids_to_tokens(ids[0])
    assert pieces[0] == "[CLS]"
    assert pieces[-1] == "[SEP]"
    assert "".join(pieces[1:-1]).replace("##", "") == "redcafé삼성phone[UNK]"
    assert hf.pad_token_id == 1
    assert len(hf) <= 90


def test_trained_vocabulary_is_the_same_in_every_process() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", TRAIN_IN_PROCESS], capture_output=True, check=True, text=True
        ).stdout
        for _ in range(3)
    ]
    assert runs[0].count(":") == 250
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab": 9}, "vocab is not a valid key of tokenizer"),
        ({"vocab_size": 0}, r"tokenizer\.train\.vocab_size=0"),
        ({"min_frequency": "2"}, r"tokenizer\.train\.min_frequency='2'"),
    ],
)
def test_refuses_training_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_wordpiece(["red"], options)


def test_refuses_to_train_on_nothing() -> None:
    with pytest.raises(ConfigError, match="learned no token"):
        train_wordpiece(["", "  "], {})
