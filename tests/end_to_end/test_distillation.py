"""Runs that learn from a teacher: from the configuration to the card, and what is refused before them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.runs import metrics, run_train, write_triplets
from helpers.tiny import save_tiny_bert
from inbatch.errors import ConfigError

PARTS = (
    "{_target_: inbatch.losses.MultipleNegativesRanking},"
    "{_target_: inbatch.losses.InBatchKL, teacher_temperature: 0.1},"
    "{_target_: inbatch.losses.EmbeddingCosine, projection: true},"
    "{_target_: inbatch.losses.GIST, temperature: 0.05}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows and a teacher with other dimensions than the student."""
    folder = tmp_path_factory.mktemp("distillation")
    write_triplets(folder / "rows.jsonl", 24)
    save_tiny_bert(folder / "guide", seed=1, hidden=16)
    return folder


def options(folder: Path) -> list[str]:
    return [
        f"data.train={folder}/rows.jsonl",
        f"++guide.model={folder}/guide",
        f"++guide.store_dir={folder}/store",
        "global_batch_size=8",
        "trainer.max_steps=3",
    ]


def test_losses_in_a_sum_share_the_guide_and_the_card_names_them(
    folder: Path, tmp_path: Path
) -> None:
    sum_of_all = ["loss=weighted_sum", f"loss.losses=[{PARTS}]", "loss.weights=[1,2,0.5,1]"]
    out = run_train(*options(folder), *sum_of_all, f"output_dir={tmp_path}")
    logged = metrics(out)[-1]
    for name in ("MultipleNegativesRanking/loss", "InBatchKL/teacher_positive_share"):
        assert any(key.endswith(name) for key in logged), sorted(logged)
    parts = {
        name: next(value for key, value in logged.items() if key.endswith(f"{name}/loss"))
        for name in ("MultipleNegativesRanking", "InBatchKL", "EmbeddingCosine", "GIST")
    }
    total = sum(weight * value for weight, value in zip([1, 2, 0.5, 1], parts.values()))
    (loss,) = [value for key, value in logged.items() if key in ("loss", "train/loss")]
    assert loss == pytest.approx(total, rel=1e-4)
    card = (out / "model" / "README.md").read_text()
    for text in ("loss:MultipleNegativesRankingLoss", "1503.02531", "2301.12005", "2402.16829"):
        assert text in card
    assert "teacher_temperature" in card
    saved = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert any("projection" in name for name in saved)


@pytest.mark.parametrize(
    ("loss", "changed", "problem"),
    [
        (["loss=in_batch_kl"], ["guide=none"], "needs a guide"),
        (["loss=embedding_mse"], [], "which have 16 dimensions, the encoder's 32"),
        (["loss=margin_mse"], [], "needs a score for each document"),
        (["loss=margin_mse", "++loss.teacher=guide"], ["guide=none"], "needs a guide"),
        (["loss=in_batch_kl", "++loss.teacher_temperature=0"], [], "teacher_temperature"),
        (["loss=weighted_sum", "loss.weights=[1]"], [], "weights"),
    ],
    ids=["guide", "dimensions", "scores", "guide for margins", "temperature", "weights"],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(
    folder: Path, tmp_path: Path, loss: list[str], changed: list[str], problem: str
) -> None:
    given = [o for o in options(folder) if not (changed and o.startswith("++guide"))]
    with pytest.raises(ConfigError, match=problem):
        run_train(*given, *loss, *changed, f"output_dir={tmp_path}")
