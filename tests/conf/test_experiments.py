"""Every experiment trains: those of model cards on made-up files, the others on real data where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.runs import compose_run, metrics, no_plots
from helpers.tiny import tiny_texts
from inbatch.config.check import check_config
from inbatch.run.train import train

CONF = Path(__file__).parents[2] / "conf"
COLUMNS = {
    "prostheses_mnrl": ("sentence_0", "sentence_1"),
    "supplies_minilm_mnrl": ("sentence_0", "sentence_1"),
    "phones_contrastive": ("sentence_0", "sentence_1", "label"),
    "terms_cosine": ("sentence_0", "sentence_1", "label"),
    "esci_cached_gist": ("query", "pos", "neg"),
}
REAL = sorted({path.stem for path in (CONF / "experiment").glob("*.yaml")} - {*COLUMNS, "demo"})
NUM_ROWS = 40


def write_rows(path: Path, columns: tuple[str, ...]) -> Path:
    """A jsonl file of random texts, and labels 0 and 1 in turn."""
    texts = [tiny_texts(NUM_ROWS, seed=i, min_words=3) for i in range(len(columns))]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*texts, strict=True)]
    for number, row in enumerate(rows):
        if "label" in row:
            row["label"] = number % 2  # type: ignore[assignment]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_experiment(name: str, model: Path, folder: Path, *overrides: str) -> Path:
    """Two steps with a tiny encoder (and guide) in place of the experiment's; no plots."""
    config = compose_run(
        f"experiment={name}",
        f"encoder.model={model}",
        "++encoder.max_length=32",
        "trainer.accelerator=cpu",
        "trainer.max_steps=2",
        f"output_dir={folder / 'run'}",
        f"guide.store_dir={folder / 'guide'}",
        "precision=fp32",
        *overrides,
    )
    if config.guide.model is not None:
        config.guide.model = str(model)
    with pytest.MonkeyPatch.context() as patch:
        no_plots(patch)
        return train(check_config(config)).output_dir


@pytest.mark.parametrize("name", COLUMNS)
def test_a_card_experiment_trains_on_a_users_files(
    name: str, tiny_bert: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", COLUMNS[name])
    source = "triplets" if name == "esci_cached_gist" else "pairs"
    evaluated = name in ("phones_contrastive", "esci_cached_gist")
    dev = [f"data.eval={rows}"] if evaluated else []
    rows_of_a_step = compose_run(f"experiment={name}").global_batch_size
    sizes = [f"global_batch_size={min(rows_of_a_step, NUM_ROWS)}"]
    output = run_experiment(
        name, tiny_bert, tmp_path, f"data.train.{source}.path={rows}", *sizes, *dev
    )
    logged = metrics(output)
    steps = [1] if rows_of_a_step > NUM_ROWS else [1, 2]
    assert [row["step"] for row in logged if "train/loss" in row] == steps
    assert any(key.startswith("eval/") for row in logged for key in row) == evaluated
    assert (output / "model" / "README.md").stat().st_size > 0


@pytest.mark.parametrize("name", REAL)
def test_an_experiment_trains_on_real_data(
    name: str, tiny_bert: Path, real_data: Path, tmp_path: Path
) -> None:
    config = compose_run(f"experiment={name}", f"data_dir={real_data}")
    limits = [f"data.train={{train: {{path: {config.data.train}, limit: {NUM_ROWS}}}}}"]
    for evaluator in config.evaluation.evaluators:
        limits.append(f"++evaluation.evaluators.{evaluator}.limit={NUM_ROWS}")
    output = run_experiment(
        name, tiny_bert, tmp_path, f"data_dir={real_data}", "global_batch_size=16", *limits
    )
    logged = metrics(output)
    assert f"eval/{config.evaluation.best_metric}" in logged[0]
    assert any("train/loss" in row for row in logged)


def test_the_demo_in_small(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run_experiment(
        "demo", tiny_bert, tmp_path,
        f"data_dir={tmp_path}", "global_batch_size=32", "++data.train.offers.limit=64",
    )  # fmt: skip
    first, last = (row for row in metrics(output) if "eval/demo-dev_cosine_accuracy" in row)
    assert (first["step"], last["step"]) == (0, 2)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["metric", "before", "after"] in shown
    metric = "demo-retrieval_cosine_ndcg@10"
    values = [f"{row[f'eval/{metric}']:.4f}" for row in (first, last)]
    assert [metric, *values] in shown
    assert ["model:", str(output / "model")] in shown
