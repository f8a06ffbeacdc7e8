"""The names of a run and of what it was made from, in its card and on the terminal."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from helpers.runs import compose_run, metrics, run_train, write_triplets
from inbatch.callbacks.wandb_run import named
from inbatch.config.check import check_config
from inbatch.errors import ConfigError
from inbatch.folder.identity import run_name
from inbatch.folder.paths import RunFolder
from inbatch.run.card_datasets import dataset_name

pytestmark = pytest.mark.xdist_group("names")  # one run for all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a name of its own, with the names of its base model and data sets."""
    folder = tmp_path_factory.mktemp("names")
    write_triplets(folder / "offers.jsonl", 24)
    write_triplets(folder / "dev.jsonl", 12, seed=50)
    with redirect_stdout(StringIO()) as shown:
        run_train(
            f"data.train={folder / 'offers.jsonl'}",
            f"data.eval={folder / 'dev.jsonl'}",
            f"output_dir={folder / 'shoes-v2'}",
            "global_batch_size=6",
            "trainer.max_steps=7",
            "trainer.max_epochs=2",
            "trainer.log_every_steps=3",
            "loss=cached_multiple_negatives_ranking",
            "card.base_model=acme/bert",
            "card.datasets.eval=acme/dev",
        )
    (folder / "shown.txt").write_text(shown.getvalue())
    return folder


def test_the_folder_names_the_run_and_its_model(folder: Path) -> None:
    run = folder / "shoes-v2"
    assert yaml.safe_load((run / "config.yaml").read_text())["name"] == "shoes-v2"
    card = ModelCard((run / "model" / "README.md").read_text())
    assert card.data.model_name == "shoes-v2"
    assert card.content.partition("\n# ")[2].startswith("shoes-v2\n")


def test_the_card_links_what_has_a_name_on_the_hub(folder: Path) -> None:
    text = (folder / "shoes-v2" / "model" / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.base_model == "acme/bert"
    assert card.data.datasets == ["acme/dev"]
    assert "- **Base model:** [acme/bert](https://huggingface.co/acme/bert)" in text
    assert "* Dataset: [acme/dev](https://huggingface.co/datasets/acme/dev)" in text
    assert "finetuned from [acme/bert](https://huggingface.co/acme/bert) on offers with" in text
    results = {(each.dataset_type, each.dataset_name) for each in card.data.eval_results}
    assert results == {("acme/dev", "acme/dev")}


def test_the_card_says_what_was_evaluated_on(folder: Path) -> None:
    text = (folder / "shoes-v2" / "model" / "README.md").read_text()
    section = text.partition("### Evaluation Dataset\n")[2].partition("\n### ")[0]
    assert section.startswith("\n#### acme/dev\n")
    assert "* Size: 12 evaluation samples" in section
    columns = "<code>query</code>, <code>positive</code>, and <code>negative</code>"
    assert f"* Columns: {columns}" in section
    assert "based on the first 12 samples" in section
    assert section.count("tokens</li>") == 9
    assert len(section.partition("* Samples:")[2].strip().splitlines()) == 5
    assert text.index("### Training Dataset\n") < text.index("### Evaluation Dataset\n")


def test_one_loss_for_one_step_everywhere(folder: Path) -> None:
    lines = (folder / "shown.txt").read_text().splitlines()
    logged = {
        row["step"]: row["train/loss"]
        for row in metrics(folder / "shoes-v2")
        if "train/loss" in row
    }
    assert list(logged) == [1, 3, 6, 7]
    found = [re.search(r"step (\d+)/7 .* loss (\S+)", line) for line in lines]
    shown = {int(match[1]): match[2] for match in found if match}
    assert {1, 7} <= shown.keys()
    assert shown == {step: f"{logged[step]:.4f}" for step in shown}
    assert f"last loss: {logged[7]:.4f} (last row of metrics.jsonl)" in lines
    card = (folder / "shoes-v2" / "model" / "README.md").read_text()
    assert f"| {logged[3]:.4f} " in card


def test_the_table_says_what_is_kept_and_what_chooses_the_model(folder: Path) -> None:
    lines = (folder / "shown.txt").read_text().splitlines()
    (chunk,) = [line for line in lines if line.startswith("batch.chunk: ")]
    kept, room = re.search(r"all graphs kept \(about (\S+) GiB, room for (\S+)\)", chunk).groups()  # type: ignore[union-attr]
    assert float(kept) < float(room)
    assert "evaluation.model: that of the largest eval_cosine_accuracy" in lines


def test_a_name_that_is_set_stays(tmp_path: Path) -> None:
    assert run_name("mine", RunFolder(tmp_path / "shoes")) == "mine"
    assert run_name("run", RunFolder(tmp_path / "shoes")) == "shoes"
    assert run_name("run", RunFolder(Path("outputs/run"))) == "run"
    trial = tmp_path / "sweep" / "3"
    trial.mkdir(parents=True)
    (trial / "trial.json").write_text('{"number": 3, "overrides": []}')
    assert run_name("run", RunFolder(trial)) == "run"


def test_wandb_takes_the_name(tmp_path: Path) -> None:
    node = {"_target_": "inbatch.callbacks.wandb_run.WandbLogger"}
    name = run_name("run", RunFolder(tmp_path / "shoes"))
    assert named(node, run_name=name, output_dir=tmp_path / "shoes")["name"] == "shoes"


def test_names_of_data_sets(tmp_path: Path) -> None:
    (tmp_path / "offers.csv.gz").touch()
    file, pattern = str(tmp_path / "offers.csv.gz"), str(tmp_path / "*.csv.gz")
    assert dataset_name("train", {"path": file}, {}).title == "offers"
    assert dataset_name("train", {"path": pattern}, {}).title == tmp_path.name
    assert dataset_name("train", {"path": "(in memory: 3 rows)"}, {}).title == "train"
    assert dataset_name("shop", {"path": file}, {}).title == "shop"
    assert dataset_name("train", {"hub": "a/b", "revision": "1"}, {}) == ("a/b", "a/b", "1")
    assert dataset_name("eval", [file, file], {"eval": "My set"}) == ("My set", None, None)
    assert dataset_name("eval", file, {"eval": "a/b"}) == ("a/b", "a/b", None)


def test_a_name_for_no_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"card\.datasets\.trian is not a valid key .*'train'"):
        check_config(compose_run("encoder=tiny", "data.train=a.csv", "card.datasets.trian=x"))
