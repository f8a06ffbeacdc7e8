"""Tables and panels: plain lines in a log, rich on a terminal."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.watched_run import log_console, terminal
from inbatch.console import (
    duration,
    metrics_table,
    printable,
    quantity,
    record,
    run_table,
    summary_panel,
)

ROWS = {
    "encoder": {"model": "distilbert [base]", "prompt": "Query: \x1b[31m\n" + 30 * "long "},
    "loss": {"temperature": "0.05"},
}


def test_run_table_in_a_log() -> None:
    console, stream = log_console()
    run_table(ROWS, console=console)
    assert stream.getvalue().splitlines() == [
        "encoder.model: distilbert [base]",
        "encoder.prompt: Query: \\x1b[31m\\n" + 30 * "long ",
        "loss.temperature: 0.05",
    ]


def test_run_table_on_a_terminal() -> None:
    console, stream = terminal()
    run_table(ROWS, console=console)
    shown = stream.getvalue()
    assert "\x1b[31m" not in shown
    assert "distilbert [base]" in shown
    assert shown.count("encoder") == 1


def test_metrics_in_a_log_stand_in_columns() -> None:
    console, stream = log_console()
    metrics_table({"dev_ndcg@10": 0.5}, {"dev_ndcg@10": 0.75, "loss": 12.5}, console=console)
    assert stream.getvalue().splitlines() == [
        "metric       before    after",
        "dev_ndcg@10  0.5000   0.7500",
        "loss" + 17 * " " + "12.5000",
    ]


def test_metrics_without_a_first_evaluation_have_one_column() -> None:
    console, stream = log_console()
    metrics_table({}, {"acc": 0.75}, console=console)
    assert stream.getvalue() == "metric   after\nacc     0.7500\n"
    metrics_table({"acc": 0.5}, {}, console=console)
    assert stream.getvalue().count("\n") == 2, "nothing was evaluated, nothing is shown"


def test_metrics_on_a_terminal() -> None:
    console, stream = terminal()
    metrics_table({"dev_ndcg@10": 0.5}, {"dev_ndcg@10": 0.75}, console=console)
    words = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).split()
    assert [word for word in words if word[0].isalnum()] == [
        *("metric", "before", "after"),
        *("dev_ndcg@10", "0.5000", "0.7500"),
    ]


def test_summary_in_a_log() -> None:
    console, stream = log_console()
    summary_panel({"steps": "12"}, {"model": "out/modèle"}, console=console)
    assert stream.getvalue() == "steps: 12\nmodel: out/modèle\n"


def test_summary_on_a_terminal_keeps_whole_paths() -> None:
    console, stream = terminal()
    path = "/".join(["folder"] * 30)
    summary_panel({"steps": "12"}, {"model": path}, console=console)
    inside = "".join(line.strip("\u2502 ") for line in stream.getvalue().splitlines())
    assert path in inside.replace("\u2502", "")


def test_printable_keeps_every_script() -> None:
    assert printable("pròtesi 휴대폰 телефон") == "pròtesi 휴대폰 телефон"
    assert printable("a\tb\r\x07") == "a\\tb\\r\\x07"


@pytest.mark.parametrize("make", [log_console, terminal])
def test_what_is_shown_is_recorded_as_plain_lines(make: Any, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "train.log")
    logging.getLogger().addHandler(handler)
    try:
        console, _ = make()
        run_table(ROWS, console=console)
        metrics_table({}, {"acc": 0.75}, console=console)
        summary_panel({"steps": "12"}, {"model": "out/model"}, console=console)
        record("one\nline\x1b")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert (tmp_path / "train.log").read_text().splitlines() == [
        "encoder.model: distilbert [base]",
        "encoder.prompt: Query: \\x1b[31m\\n" + 30 * "long ",
        "loss.temperature: 0.05",
        "metric   after",
        "acc     0.7500",
        "steps: 12",
        "model: out/model",
        "one\\nline\\x1b",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (93784, "1d 2:03:04")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (12.345, "12.3"), (100.4, "100"), (1234.5, "1,234")]
)
def test_quantity(value: float, text: str) -> None:
    assert quantity(value) == text
