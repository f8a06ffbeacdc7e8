"""`inbatch inspect` as users start it: what it prints and writes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from helpers.runs import TINY, compose_run, write_triplets
from helpers.tiny import save_tiny_bert
from inbatch.cli.inspect import InspectConfig, inspect_data, read_by, read_config
from inbatch.cli.prepare import prepare_sources
from inbatch.cli.prepare import read_config as read_prepare
from inbatch.data.inspection.show import show
from inbatch.data.inspection.values import Inspection
from inbatch.errors import ConfigError

ROOT = Path(__file__).parents[2]


def inspection(*overrides: str) -> Inspection:
    """Inspect in this process."""
    run, options = read_config(compose_run(*overrides))
    return inspect_data(run, options, sampler="no_duplicates")


def shown(found: Inspection, *, width: int = 80, terminal: bool = False) -> str:
    out = StringIO()
    show(found, Console(file=out, width=width, force_terminal=terminal, highlight=False))
    return out.getvalue()


def write_pairs(path: Path) -> Path:
    """Rows with a text twice, a label, a column without a role, and a long text."""
    lines = ["query,positive,label,shop"]
    lines += [f"offer {n},product {n // 2},{n % 2},[bold]eu" for n in range(40)]
    lines += [f"{'long text ' * 60},product x,1,us"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_command_prints_plain_lines_writes_json_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_triplets(tmp_path / "triplets.jsonl", 40)
    line = [sys.executable, str(ROOT / "scripts" / "inspect_data.py"), *TINY]
    line += ["data.train=triplets.jsonl", "inspect.output=all/of it.json", "inspect.rows=2"]
    done = subprocess.run(
        line,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", "TERM": "xterm"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert [
        text for text in done.stdout.splitlines() if len(text) > 80 or text != text.rstrip()
    ] == []
    for heading in ("train: 40 rows", "Known false negatives in batches of 64 rows", "Suggestions"):
        assert f"\n{heading}\n" in f"\n{done.stdout}"
    written = json.loads((tmp_path / "all" / "of it.json").read_text())
    assert written["report"]["sources"][0]["num_rows"] == 40
    assert [role["role"] for role in written["sources"][0]["roles"]] == [
        *("query", "positive", "negative")
    ]
    assert len(written["sources"][0]["rows"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "triplets.jsonl"]


def test_without_an_encoder_characters_alone_are_counted(tmp_path: Path) -> None:
    found = inspection(f"data.train={write_pairs(tmp_path / 'pairs.csv')}", "++inspect.rows=41")
    assert found.encoder is None
    text = shown(found)
    assert "tokens" not in text.replace("to count tokens", "")
    assert "whole, since no encoder is named" in text
    assert "shop      ignored   no known name" in text
    assert re.search(r"label\s+rows\s+share\n\s+0\s+20\s+48.8%\n\s+1\s+21\s+51.2%", text)
    assert "Known false negatives" not in text, "labels say which pairs match"
    assert "loss=contrastive" in text
    assert "are not used by loss MultipleNegativesRanking" in " ".join(text.split())


def test_with_an_encoder_tokens_are_counted_and_cuts_are_shown(tmp_path: Path) -> None:
    model = save_tiny_bert(tmp_path / "model")
    keys = [f"data.train={write_pairs(tmp_path / 'pairs.csv')}", f"encoder.model={model}"]
    found = inspection(
        "encoder=pretrained", *keys, "++inspect.rows=41", "++encoder.prompts={query: 'small '}"
    )
    [source] = found.report.sources
    assert (found.encoder, found.report.max_length) == (str(model), 64)
    assert source.columns[0].truncated_share == pytest.approx(1 / 41)
    text = shown(found, width=120)
    assert "prompt of query: 'small '" in text
    assert re.search(
        r"small long text .* … .*\[cut here: \d+ more characters\]", " ".join(text.split())
    )
    assert "\x1b[" in shown(found, terminal=True)


def test_weights_are_neither_read_nor_needed(tmp_path: Path) -> None:
    model = save_tiny_bert(tmp_path / "model")
    (model / "model.safetensors").unlink()
    run, _ = read_config(compose_run("data.train=x.csv", f"encoder.model={model}"))
    reader = read_by(run.encoder, [])
    assert reader.tokenizer is not None
    assert reader.tokenizer.max_length == 64


def test_prepared_and_streamed_data_are_inspected_too(tmp_path: Path) -> None:
    path = write_triplets(tmp_path / "triplets.jsonl", 40)
    prepare = compose_run(*TINY, f"data.train={path}", f"++prepare.output={tmp_path / 'prepared'}")
    folder = prepare_sources(*read_prepare(prepare))
    prepared = inspection(f"data.train={folder}")
    streamed = inspection(
        f"data.train={path}", "data.train.streaming=true", f"data.cache_dir={tmp_path / 'cache'}"
    )
    raw = inspection(f"data.train={path}")
    kinds = [found.sources[0].place.kind for found in (raw, prepared, streamed)]
    assert kinds == ["jsonl", "prepared folder", "jsonl, streamed"]
    for found in (prepared, streamed):
        assert found.sources[0].rows == raw.sources[0].rows
        assert found.report.sources[0].columns == raw.report.sources[0].columns
    assert {role.rule for role in prepared.sources[0].roles} == {
        "fixed when the data were prepared"
    }


def test_what_the_loss_leaves_out_is_said(tmp_path: Path) -> None:
    path = f"data.train={write_triplets(tmp_path / 'triplets.jsonl', 40)}"
    assert "the loss of" not in shown(inspection(path))
    masked = shown(inspection(path, "++loss.mask_duplicates=true"))
    assert "the loss of train leaves them out of the negatives (loss.mask_duplicates)" in masked
    guided = shown(inspection(path, "loss=gist", "++guide.model=never/read"))
    assert "the loss of train leaves out of the negatives what its guide finds" in guided
    assert "loss=cached_gist: as configured" in guided


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("query,positive\na,b\nc,\nd,e\n")
    found = inspection(f"data.train={path}", "data.train.on_empty=drop", "++inspect.rows=0")
    assert (found.report.sources[0].intake.read, found.sources[0].rows) == (3, ())
    assert "3 rows read, 2 used, 1 left out" in shown(found)


def test_several_sources(tmp_path: Path) -> None:
    first = write_triplets(tmp_path / "first.jsonl", 40)
    second = write_triplets(tmp_path / "second.jsonl", 24, seed=9)
    keys = [f"data.train.a={first}", f"data.train.b={second}", "global_batch_size=8"]
    found = inspection(*keys, "sampler=proportional", "drop_last=true")
    text = shown(found)
    assert "a: 40 rows" in text
    assert "b: 24 rows" in text
    assert re.search(r"proportional \*\s+b\s+3\s+0\s+0%", text)
    with pytest.raises(ConfigError, match="plans one source, and there are 2"):
        inspection(*keys)


def test_a_source_with_labels_has_no_false_negatives(tmp_path: Path) -> None:
    pairs, labelled = tmp_path / "pairs.csv", write_pairs(tmp_path / "labelled.csv")
    pairs.write_text("query,positive\n" + "".join(f"q{n},p{n // 2}\n" for n in range(40)))
    keys = [f"data.train.pairs={pairs}", f"data.train.labelled={labelled}"]
    found = inspection(*keys, "sampler=proportional", "global_batch_size=16")
    assert {fact.source for fact in found.samplers} == {"pairs"}


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        (["loss=cosent"], "needs labels, and source 'train' has none"),
        (["loss=gist"], "needs a guide"),
        (["++loss.temprature=1"], "loss.temprature is not a valid key"),
        (["drop_last=true", "global_batch_size=99"], "is more than the 40 rows of the data"),
        (["encoder.model=no/such/model"], "encoder.model='no/such/model' is not a directory"),
        (["++inspect.rows=-1"], "inspect.rows=-1 is too small"),
        (["++inspect.rows=ten"], "inspect.rows='ten' is not a whole number"),
        (["++inspect.output=x.txt"], "inspect.output='x.txt' is not a .json file"),
        (["++inspect.row=1"], "inspect.row is not a valid key of .*: did you mean 'rows'"),
        (["++inspect=5"], "inspect=5 is not a group of keys"),
    ],
)
def test_what_a_run_refuses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str], error: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = write_triplets(tmp_path / "triplets.jsonl", 40)
    with pytest.raises(ConfigError, match=error):
        inspection(f"data.train={path}", *keys)


def test_no_row_need_be_shown() -> None:
    assert InspectConfig(rows=0).output == ""
