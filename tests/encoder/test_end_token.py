"""`end_token`: texts of base language models end in the eos token, here and in sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_decoders import SIZES
from tokenizers import processors
from transformers import AutoConfig, AutoModelForCausalLM, LlamaTokenizer, PreTrainedTokenizerFast

from helpers.st_oracle import TEXTS, assert_same_model
from helpers.tiny import tiny_tokenizer
from inbatch.encoder import build_encoder, build_static_encoder
from inbatch.encoder.end_token import add_end_token, with_end
from inbatch.encoder.tokenize import read_back
from inbatch.errors import ConfigError

BOS, EOS = 5, 6
_START = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
STEPS = {
    "nothing": processors.TemplateProcessing(single="$A"),
    "bytes": processors.ByteLevel(),
    "a start": _START,
    "bytes and a start": processors.Sequence([processors.ByteLevel(), _START]),
}


def tokenizer(step: processors.PostProcessor) -> PreTrainedTokenizerFast:
    """Word-level, with start and end tokens behind the five of BERT."""
    backend = tiny_tokenizer().backend_tokenizer
    state = json.loads(backend.to_str())
    words = [word for word in state["model"]["vocab"] if not word.startswith("[")]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", *words]
    state["model"]["vocab"] = {name: number for number, name in enumerate(names)}
    backend = type(backend).from_str(json.dumps(state))
    backend.post_processor = step
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)


def write(path: Path, hf: PreTrainedTokenizerFast, kind: str = "llama") -> str:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(hf), **SIZES)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    hf.save_pretrained(path)
    file = path / "tokenizer_config.json"
    given = {"padding_side": "left", "tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(json.loads(file.read_text()) | given))
    return str(path)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("name", STEPS)
def test_every_text_ends_in_one_end_token_here_and_there(
    name: str, kind: str, tmp_path: Path
) -> None:
    model = write(tmp_path / "base", tokenizer(STEPS[name]), kind)
    before = build_encoder(model, max_length=12)
    encoder = build_encoder(model, max_length=12, end_token=True, prompts={"query": "red "})
    assert encoder.pooling.modes == ("last_token",)  # type: ignore[union-attr]
    assert not torch.allclose(encoder.encode(TEXTS), before.encode(TEXTS), atol=1e-2)
    start = [BOS] if "start" in name else []
    for text in TEXTS:
        (plain,), _ = before.tokenizer([text])
        (ids,), _ = encoder.tokenizer([text])
        assert ids == [*plain[:11], EOS]
        assert ids[: len(start)] == start
        assert len(ids) <= 12
    _, prompt_length = encoder.tokenizer(["blue"], "red ")
    assert prompt_length == len(start) + 1
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    for end_token in (None, True):
        again = build_encoder(str(tmp_path / "model"), end_token=end_token)
        assert again.tokenizer(TEXTS) == encoder.tokenizer(TEXTS)


def test_bytes_keep_their_step(tmp_path: Path) -> None:
    """It trims offsets, which others read from the saved tokenizer."""
    model = write(tmp_path, tokenizer(STEPS["bytes and a start"]))
    step = build_encoder(model, end_token=True).tokenizer.hf.backend_tokenizer.post_processor
    assert isinstance(step, processors.Sequence)
    assert isinstance(step[0], processors.ByteLevel)


def test_a_pair_ends_too() -> None:
    assert with_end(None, "</s>", EOS)["pair"][-1] == {"SpecialToken": {"id": "</s>", "type_id": 1}}


def test_what_cannot_end_texts_is_refused(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", tiny_tokenizer())
    with pytest.raises(ConfigError, match=r"end_token=true.*has no eos token"):
        build_encoder(plain, end_token=True)
    step = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    bert = write(tmp_path / "bert", tokenizer(step))
    with pytest.raises(ConfigError, match="adds special tokens by BertProcessing"):
        build_encoder(bert, end_token=True)


def test_a_tokenizer_that_would_come_back_without_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write(tmp_path, tokenizer(STEPS["a start"]))
    without = tokenizer(STEPS["a start"])
    monkeypatch.setattr("inbatch.encoder.end_token.read_back", lambda hf, config: without)
    with pytest.raises(ConfigError, match="of llama models comes back without it"):
        build_encoder(model, end_token=True)


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True, "add_eos_token": False}])
def test_the_tokenizer_of_llama_comes_back_with_it(flags: dict[str, bool], tmp_path: Path) -> None:
    """Its class makes the step that adds special tokens from flags where there is no tokenizer.json."""
    names = ["[PAD]", "<unk>", "<s>", "</s>", *"\u2581acder", "re", "red", "\u2581red"]
    hf = LlamaTokenizer(
        vocab={name: number for number, name in enumerate(names)},
        merges=[("r", "e"), ("re", "d"), ("\u2581", "red")],
        pad_token="[PAD]",
        **flags,
    )
    config = AutoConfig.for_model("llama", **SIZES)
    plain: list[int] = hf("red card")["input_ids"]
    add_end_token(hf, config)
    assert hf("red card")["input_ids"] == [*plain, 3]
    assert read_back(hf, config)("red card")["input_ids"] == [*plain, 3]
    assert (plain[0] == 2) == bool(flags)


def test_a_static_encoder_has_no_end_token(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tokenizer": {"train": {"vocab_size": 80}}, "dimension": 8}
    build_static_encoder(texts=lambda: TEXTS * 5, **options).save(tmp_path)
    with pytest.raises(ConfigError, match=r"end_token.*does not go with a StaticEmbedding"):
        build_encoder(str(tmp_path), end_token=True)
