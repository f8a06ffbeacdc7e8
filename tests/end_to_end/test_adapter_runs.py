"""Runs that train an adapter: they resume bit for bit from checkpoints without the frozen weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from helpers.distributed import run
from helpers.runs import metrics, run_train, train_as_rank, weights, write_triplets
from helpers.tiny import save_tiny_bert, tiny_texts
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError

pytest.importorskip("peft")
ADAPTER = "encoder.adapter={rank: 4, dropout: 0.3, targets: [query, value, dense]}"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    base = save_tiny_bert(tmp_path / "base", dropout=0.1)
    rows = write_triplets(tmp_path / "rows.jsonl", 24)
    pretrained = ["encoder=pretrained", "encoder.config=null", "encoder.tokenizer=null"]
    files = [f"encoder.model={base}", f"data.train={rows}"]
    return [
        *pretrained,
        *files,
        ADAPTER,
        "global_batch_size=8",
        "gradcache=rows",
        "gradcache.chunk_size=3",
    ]


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        pytest.param("ddp", (), marks=pytest.mark.exhaustive),
        ("fsdp", ("encoder.dtype=bfloat16", "precision=bf16")),
    ],
)
def test_a_resumed_run_is_bit_identical(
    tmp_path: Path, options: list[str], strategy: str, more: tuple[str, ...]
) -> None:
    options = [*options, *more, f"strategy={strategy}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(train_as_rank, 2, [*options, f"output_dir={whole}"])
    run(train_as_rank, 2, [*options, f"output_dir={parts}", "trainer.max_steps=2"])
    run(train_as_rank, 2, [*options, f"output_dir={parts}"])
    losses = [[row["train/loss"] for row in metrics(folder)] for folder in (whole, parts)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name
    saved = torch.load(parts / "checkpoints" / "last.ckpt", weights_only=True)
    assert all("lora_" in name for name in saved["state_dict"])
    assert len(saved["state_dict"]) > 10
    texts = tiny_texts(9)
    theirs = SentenceTransformer(str(parts / "model"), device="cpu").encode(texts)
    ours = build_encoder(str(parts / "model")).encode(texts)
    torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=0, atol=2e-6)


def test_a_run_on_top_of_an_adapter(tmp_path: Path, options: list[str]) -> None:
    """It resumes bit for bit, keeps the other as it was, and its own adapter is the two as one."""
    first, whole, parts = (tmp_path / name for name in ("first", "whole", "parts"))
    run_train(*options, f"output_dir={first}")
    beneath = first / "model" / "adapter"
    options = [*options, f"encoder.adapter=[{beneath},{{rank: 2, dropout: 0.2}}]"]
    options.remove(ADAPTER)
    run_train(*options, f"output_dir={whole}")
    run_train(*options, f"output_dir={parts}", "trainer.max_steps=2")
    run_train(*options, f"output_dir={parts}")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name
    saved = torch.load(parts / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(".default." in name for name in saved["state_dict"])
    texts = tiny_texts(9)
    merged = build_encoder(str(parts / "model")).encode(texts)
    assert (merged - build_encoder(str(first / "model")).encode(texts)).abs().max() > 1e-4
    joined = build_encoder(str(parts / "model" / "adapter"))
    torch.testing.assert_close(joined.encode(texts), merged, rtol=0, atol=2e-6)


def test_a_checkpoint_beside_other_weights_is_refused(tmp_path: Path, options: list[str]) -> None:
    options = [*options, f"output_dir={tmp_path / 'run'}"]
    run_train(*options, "trainer.max_steps=2")
    save_tiny_bert(tmp_path / "base", dropout=0.1, seed=5)
    with pytest.raises(ConfigError, match="trained beside other weights: give the"):
        run_train(*options, "trainer.max_steps=3")


def test_16_bit_weights_under_deepspeed_need_bf16(options: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.dtype='bfloat16' does not stay what it is"):
        run_train(*options, "encoder.dtype=bfloat16", "strategy=deepspeed_stage_2")
