"""Merged models, against their parts' weights and sentence-transformers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from helpers.runs import write_triplets
from helpers.tiny import save_tiny_bert, tiny_texts, tiny_tokenizer
from inbatch.cli.overrides import complete_overrides
from inbatch.config.check_merge import check_merge
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.encoder import Encoder, build_encoder
from inbatch.errors import ConfigError
from inbatch.files import fresh_folder
from inbatch.merging.merge import Merged
from inbatch.merging.weights import Entry, write_safetensors
from inbatch.run.merge import merge_models


def merge(*overrides: str) -> Merged:
    """Merge as a command line says."""
    return merge_models(check_merge(compose("merge", complete_overrides(overrides, CONF))))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models that differ in their weights; the second has another prompt."""
    folder = tmp_path_factory.mktemp("models")
    base = save_tiny_bert(folder / "start")
    found = []
    for number, name in enumerate(("red", "green", "blue")):
        prompts = {"query": "find: " if number != 1 else "ask: "}
        torch.manual_seed(7)
        encoder = build_encoder(
            str(base), dense={"out_features": 16}, normalize=True, prompts=prompts
        )
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        encoder.save(folder / name)
        found.append(folder / name)
    return found


def mean_encoder(paths: list[Path], shares: list[float]) -> Encoder:
    """The encoder whose weights are the mean, computed from whole models in float64."""
    encoders = [build_encoder(str(path)).double() for path in paths]
    with torch.no_grad():
        for parameters in zip(*(encoder.parameters() for encoder in encoders), strict=True):
            total = sum(s * p for s, p in zip(shares, parameters, strict=True))
            parameters[0].copy_(total)
    return encoders[0].float()


def test_a_weighted_mean(models: list[Path], tmp_path: Path) -> None:
    named = ",".join(map(str, models))
    merged = merge(f"models=[{named}]", "weights=[2,1,1]", f"output_dir={tmp_path / 'soup'}")
    assert merged.shares == [0.5, 0.25, 0.25]
    texts = tiny_texts(8)
    expected = mean_encoder(models, [0.5, 0.25, 0.25]).encode(texts, role="query")
    model = SentenceTransformer(str(tmp_path / "soup" / "model"), device="cpu")
    found = torch.as_tensor(model.encode(texts, prompt_name="query"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert model.prompts["query"] == "find: "
    note = "prompts of red is kept ({query: 'find: '}), green has {query: 'ask: '}"
    assert merged.notes == [note]
    card = (tmp_path / "soup" / "model" / "README.md").read_text()
    assert "# soup\n" in card
    assert "merged from 3 models" in card
    assert "| red   | 0.5" in card
    assert "- merge\n" in card
    assert "generated_from_trainer" not in card
    assert str(models[0].parent) not in card
    record = json.loads((tmp_path / "soup" / "merge.json").read_text())
    assert [each["share"] for each in record["models"]] == merged.shares


def test_a_greedy_soup_by_held_out_data(models: list[Path], tmp_path: Path) -> None:
    rows = write_triplets(tmp_path / "dev.jsonl", 40)
    merged = merge(
        f"models={models[0].parent}/[rgb]*",
        "method=greedy",
        f"data.eval={rows}",
        "device=cpu",
        f"output_dir={tmp_path / 'soup'}",
    )
    assert [each.label for each in merged.ingredients] == ["blue", "green", "red"]
    assert merged.metric == "eval_cosine_accuracy"
    alone = [metrics[merged.metric] for metrics in merged.each]
    assert merged.metrics[merged.metric] >= max(alone)
    kept = [model for model, share in zip(merged.ingredients, merged.shares) if share]
    assert merged.shares[alone.index(max(alone))] == 1 / len(kept)
    card = (tmp_path / "soup" / "model" / "README.md").read_text()
    assert "**the merged model**" in card
    assert "Model soups" in card
    expected = mean_encoder([each.directory for each in kept], [1 / len(kept)] * len(kept))
    found = build_encoder(str(tmp_path / "soup" / "model"))
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_slerp_of_files_in_parts_keeps_types(models: list[Path], tmp_path: Path) -> None:
    paths = [_in_parts(model, tmp_path / model.name) for model in models[:2]]
    merge(f"models=[{paths[0]},{paths[1]}]", "method=slerp", f"output_dir={tmp_path / 'arc'}")
    target = tmp_path / "arc" / "model"
    assert sorted(path.name for path in target.glob("*.safetensors*")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    parts = [load_file(path) for path in sorted(target.glob("*.safetensors"))]
    assert {t.dtype for t in parts[0].values()} == {torch.bfloat16}
    assert {t.dtype for t in parts[1].values()} == {torch.float32}
    SentenceTransformer(str(target), device="cpu").encode(tiny_texts(2))


def _in_parts(model: Path, target: Path) -> Path:
    """The same model in two files, one of them in 16 bits."""
    build_encoder(str(model)).save(target)
    tensors = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[:10], names[10:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        dtype = torch.bfloat16 if number == 1 else torch.float32
        save_file({n: tensors[n].to(dtype) for n in part}, target / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (target / "model.safetensors.index.json").write_text(text)
    return target


def _broken(model: Path, target: Path) -> None:
    """The same model with one value that is not a number."""
    shutil.copytree(model, target)
    tensors = load_file(target / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"][3] = math.nan
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def _cut(model: Path, target: Path) -> None:
    """The same model with half of its file."""
    shutil.copytree(model, target)
    content = (target / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="module")
def paths(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The three models, the first as one of a run; the folder of another run; two models that are broken."""
    folder = tmp_path_factory.mktemp("paths")
    for model, run in ((models[0], "first"), (models[1], "run")):
        shutil.copytree(model, folder / run / "model")
    _broken(models[1], folder / "nan")
    _cut(models[1], folder / "cut")
    first = folder / "first" / "model"
    return [first, *models[1:], *(folder / name for name in ("run", "nan", "cut"))]


def _wider(path: Path) -> None:
    build_encoder(str(save_tiny_bert(path / "base", hidden=64))).save(path / "model")


def _other_words(path: Path) -> None:
    base = save_tiny_bert(path / "base")
    build_encoder(str(base), dense={"out_features": 16}, normalize=True).save(path / "model")
    vocabulary = tiny_tokenizer().get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    tokenizer = json.loads((path / "model" / "tokenizer.json").read_text())
    swapped = {word: number for number, word in enumerate([*words[:-2], words[-1], words[-2]])}
    tokenizer["model"]["vocab"] = swapped
    (path / "model" / "tokenizer.json").write_text(json.dumps(tokenizer))


def _without_dense(path: Path) -> None:
    build_encoder(str(save_tiny_bert(path / "base"))).save(path / "model")


def _other_shape(path: Path) -> None:
    base = save_tiny_bert(path / "base")
    build_encoder(str(base), dense={"out_features": 16}, normalize=True).save(path / "model")
    file = path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["embeddings.LayerNorm.bias"] = torch.zeros(31)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_wider, "has the modules Transformer, Pooling, Dense(32 to 16, Tanh), Normalize and"),
        (
            _without_dense,
            "has the modules Transformer, Pooling, Dense(32 to 16, Tanh), Normalize and",
        ),
        (_other_words, "has a tokenizer and"),
        (_other_shape, "the weight embeddings.LayerNorm.bias of shape [32] and"),
    ],
)
def test_models_that_differ_are_refused(
    models: list[Path], tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError) as refused:
        merge(f"models=[{models[0]},{tmp_path / 'model'}]", f"output_dir={tmp_path / 'out'}")
    assert said in str(refused.value)
    assert not (tmp_path / "out" / "model").exists()


def test_an_architecture_that_differs_is_named(tmp_path: Path) -> None:
    for name, hidden in (("a", 32), ("b", 64)):
        build_encoder(str(save_tiny_bert(tmp_path / f"base_{name}", hidden=hidden))).save(
            tmp_path / name
        )
    with pytest.raises(ConfigError, match=r"a has hidden_size 32 and \S+b has 64"):
        merge(f"models=[{tmp_path / 'a'},{tmp_path / 'b'}]", f"output_dir={tmp_path / 'out'}")


def test_layers_that_add_their_input_are_told_apart(tmp_path: Path) -> None:
    base = str(save_tiny_bert(tmp_path / "base"))
    for residual in (False, True):
        dense = {"out_features": 32, "residual": residual}
        build_encoder(base, dense=dense).save(tmp_path / f"{residual}")
    models = f"models=[{tmp_path / 'False'},{tmp_path / 'True'}]"
    with pytest.raises(ConfigError, match=r"Dense\(32 to 32, Tanh, beside its input\)"):
        merge(models, f"output_dir={tmp_path / 'out'}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["models={0}"], "names one model: name at least two"),
        (
            ["models=[{0},{1},{2}]", "method=slerp"],
            "method='slerp' takes two models, and models names 3",
        ),
        (["models=[{0},{1}]", "method=greedy"], "needs a metric: set data.eval=FILE"),
        (["models=[{0},{1}]", "weights=[1]"], "weights=[1] are not one for each of 2 models"),
        (["models=[{0},{1}]", "weights=[1,0]"], "have a number that is not above 0"),
        (["models=[{0},{1}]", "best=2"], "best=2 has no sweep to take from"),
        (["models=[{0},nowhere/at_all/x]"], "is not a directory"),
        (["models=[{0},{1}]", "output_dir={0}/.."], "is that of a model to merge"),
        (["models=[{0},{1}]", "output_dir={3}"], "holds a model that no merge has written"),
        (["models=[{0},{4}]"], "embeddings.LayerNorm.bias of {4} is not finite: leave that"),
        (["models=[{0},{5}]"], "{5}/model.safetensors cannot be read"),
        (["models=[{0},{1}]", "methd=mean"], "did you mean 'method'?"),
    ],
    ids=[
        "one",
        "slerp",
        "greedy",
        "few",
        "zero",
        "best",
        "nowhere",
        "onto",
        "run",
        "nan",
        "cut",
        "key",
    ],
)
def test_mistakes_are_one_sentence(
    paths: list[Path], tmp_path: Path, overrides: list[str], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        merge(f"output_dir={tmp_path / 'out'}", *(text.format(*paths) for text in overrides))
    assert said.format(*paths) in str(refused.value)


def test_the_folder_of_a_merge_is_used_again_without_what_a_killed_one_left(
    models: list[Path], tmp_path: Path
) -> None:
    words = (f"models=[{models[0]},{models[1]}]", f"output_dir={tmp_path}")
    merge(*words)
    left = tmp_path / ".model.0123456789ab.new"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    with fresh_folder(tmp_path / "model") as running:
        merge(*words)
        assert not left.exists()
        assert running.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merge.json", "model"]


def test_written_files_are_those_of_the_library(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(3.5),
        "mask": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "wide": torch.randn(7).double(),
        "ids": torch.arange(6).reshape(2, 3),
    }
    codes = {"scalar": "F32", "mask": "BOOL", "half": "BF16", "wide": "F64", "ids": "I64"}
    entries = {name: Entry("", codes[name], tuple(t.shape)) for name, t in tensors.items()}
    write_safetensors(tmp_path / "ours.safetensors", entries, tensors.__getitem__)
    found = load_file(tmp_path / "ours.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with pytest.raises(ValueError, match="scalar"):
        write_safetensors(
            tmp_path / "wrong.safetensors", entries, lambda name: tensors[name].double()
        )
    assert not (tmp_path / "wrong.safetensors").exists()
