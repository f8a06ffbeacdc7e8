"""`inbatch COMMAND`: how it begins and ends, its help, its completion."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest

from inbatch.cli.commands import COMMANDS
from inbatch.cli.completion import BASH, candidates
from inbatch.cli.help import command_help, important_keys, overview
from inbatch.cli.keys import choices, entries, groups, target_keys
from inbatch.cli.main import main
from inbatch.config.commands import CONFIGS
from inbatch.config.schema import CONF

SRC = Path(__file__).parents[1] / "src"
PROGRAM = """
import atexit, gc, sys, threading, time, types
from inbatch.cli import main as commands

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()

def main(typed):
    assert gc.isenabled() and gc.get_freeze_count() > 1000
    atexit.register(print, "exit handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("main", typed, sys.argv[1:], end=" ")
    {end}

sys.modules["inbatch.cli.train"] = types.SimpleNamespace(main=main)
commands.main()
"""


def run(*line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(SRC), **environment}
    return subprocess.run(
        [sys.executable, *line],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=variables,
    )


@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("return 3", 3), ("sys.exit(4)", 4), ("sys.exit()", 0)]
)
def test_a_command_leaves_when_threads_and_exit_handlers_have_ended(end: str, code: int) -> None:
    ended = run("-c", PROGRAM.replace("{end}", end), "train", "a=1")
    expected = "main train ['a=1'] thread\nexit handler\n"  # and nothing is taken apart
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, expected, "")


@pytest.mark.parametrize(("end", "said"), [("sys.exit('why')", "why\n"), ("1 / 0", "ZeroDivision")])
def test_other_ends(end: str, said: str) -> None:
    ended = run("-c", PROGRAM.replace("{end}", end), "a=1")
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stdout.startswith("main None ['a=1']")
    assert "exit handler" in ended.stdout


def test_ctrl_c_is_one_line() -> None:
    ended = run("-c", PROGRAM.replace("{end}", "raise KeyboardInterrupt"), "a=1")
    assert (ended.returncode, ended.stderr) == (130, "stopped by Ctrl-C\n")


def test_help_answers_at_once() -> None:
    for line in (["--help"], ["train", "--help"]):
        used = []
        for _ in range(3):  # the least: whatever else ends meanwhile counts as well
            before = os.times()
            answer = run("-X", "importtime", "-m", "inbatch", *line)
            after = os.times()  # of the processor, so that a busy machine does not matter
            used.append(
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
            if used[-1] < 2.0:
                break
        assert min(used) < 2.0
        assert answer.returncode == 0
        assert not re.search(r"\| +(torch|lightning|transformers|hydra)$", answer.stderr, re.M)


@pytest.mark.parametrize("line", [["--help"], ["train", "--help"]], ids=["overview", "train"])
def test_help_whose_reader_has_left_ends_silently(
    line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        monkeypatch.setattr(sys, "argv", ["inbatch", *line])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0


def test_the_overview_names_every_command() -> None:
    text = " ".join(overview().split())
    for name, command in COMMANDS.items():
        assert f" {name} {command.summary}" in text


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.config])
def test_help_of_a_command_tells_what_a_newcomer_needs(name: str) -> None:
    text = command_help(name)
    assert "Examples:" in text
    assert len(COMMANDS[name].examples) == 3
    assert [key.name for key in important_keys(COMMANDS[name]) if not key.text] == []
    assert str(CONF / "README.md") in text
    if name != "submit":
        assert "--cfg job" in text
        assert "--hydra-help" in text
    for group in CONFIGS[COMMANDS[name].config].groups or groups():
        words = " ".join(text.split())
        assert f"Choices: {', '.join(choices(group))}" in words


def test_help_of_a_command_without_a_configuration_lists_its_keys() -> None:
    text = command_help("doctor")
    assert "\nKeys:\n" in text
    assert [key.name for key in important_keys(COMMANDS["doctor"]) if not key.text] == []
    assert "Groups" not in text + command_help("report")


@pytest.mark.parametrize("name", [name for name, c in COMMANDS.items() if c.options])
def test_help_lists_the_options_that_a_command_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def note(parser: argparse.ArgumentParser) -> NoReturn:
        taken.extend(
            action.option_strings[-1] for action in parser._actions[1:] if action.option_strings
        )
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", note)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", note)
    with pytest.raises(SystemExit):
        import_module(COMMANDS[name].module).main()
    listed = [option.partition(" ")[0] for option in COMMANDS[name].options]
    assert sorted(listed) == sorted(taken)
    words = " ".join(command_help(name).split())
    assert all(f"{option} {text}" in words for option, text in COMMANDS[name].options.items())


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (["trian", "a=1"], "error: trian is not a command: did you mean 'train'?\n"),
        (["xyz"], f"error: xyz is not a command: use one of {', '.join(COMMANDS)}\n"),
    ],
)
def test_a_mistyped_command_is_one_line(line: list[str], error: str) -> None:
    ended = run("-m", "inbatch", *line)
    assert (ended.returncode, ended.stderr) == (1, error)


def test_every_group_is_described() -> None:
    assert [name for name, text in groups().items() if not text and name != "hydra"] == []


def test_keys_are_read_from_a_docstring_and_a_signature() -> None:
    text = "Title.\n\nMore: see.\n\na: first\n    and more.\nb, c: both.\n\nRaises:\n    E: no.\n"
    assert entries(text) == {"More": "see", "a": "first and more", "b": "both", "c": "both"} | {
        "E": "no"
    }
    assert {"lr", "betas"} <= target_keys("inbatch.optim.adamw").keys()
    assert {"temperature"} <= target_keys("inbatch.losses.MultipleNegativesRanking").keys()
    assert target_keys("torch.optim.Adam") == {} == target_keys("inbatch.losses.Nothing")


# --- completion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train "]),
        (["train", "loss=cached_g"], ["loss=cached_gist "]),
        (["train", "trainer.max"], ["trainer.max_epochs=", "trainer.max_steps="]),
        (["train", "train"], ["trainer.", "trainer="]),
        (["train", "loss=gist", "loss.mar"], ["loss.margin=", "loss.margin_strategy="]),
        (["train", "optimizer.l"], ["optimizer.lr="]),
        (["train", "drop_last=t"], ["drop_last=true "]),
        (["train", "data.train=off"], []),  # left to the shell: names of files
        (["train", "--c"], ["--cfg ", "--config-dir ", "--config-name "]),
        (["evaluate", "encoder=mini"], ["encoder=minilm "]),
        (["embed", "dtype=f"], ["dtype=float16 ", "dtype=float32 "]),
        (["embed", "enc"], ["encoder.", "encoder="]),
        (["prepare", "prepare.t"], ["prepare.tokenize="]),
        (["inspect", "inspect."], ["inspect.output=", "inspect.rows="]),
        (["submit", "slurm.gpus"], ["slurm.gpus_per_node="]),
        (["report", "multi"], []),
        (["export", "outputs/offers", "--m"], ["--min-cosine "]),
        (["import", "--o"], ["--output "]),
        (["card", "outputs/offers", "--"], ["--overwrite ", "--help "]),
        (["doctor", ""], ["device=", "output_dir=", "timeout_s="]),
        (["doctor", "device=c"], ["device=cpu ", "device=cuda "]),
        (["doctor", "-"], ["--help "]),
        (["completion", ""], ["bash ", "zsh "]),
        (["nothing", "x"], []),
    ],
)
def test_completion(words: list[str], expected: list[str]) -> None:
    assert sorted(candidates(words)) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("inbatch ev", ["evaluate "]),
        ("inbatch train optimizer=adaf", ["adafactor "]),  # bash replaces what follows the =
        ("inbatch train trainer.dev", ["trainer.devices="]),
    ],
)
def test_bash_completes(line: str, expected: list[str], tmp_path: Path) -> None:
    program = tmp_path / "inbatch"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m inbatch "$@"\n')
    program.chmod(0o755)
    ask = f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=(inbatch)\n'
    script = f'{BASH}\n{ask}_inbatch\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("completion", "--words", "inbatch tr"), 0, "train \n"),
        (
            ("report", "nowhere"),
            1,
            "error: sweep='nowhere' holds no trials: give the folder of a --multirun\n",
        ),
        (
            ("import", "nowhere.md"),
            1,
            "error: nowhere.md is not there: name a card, a directory, a JSON file or a script\n",
        ),
    ],
)
def test_commands_that_do_not_wait_for_torch(words: tuple[str, ...], code: int, said: str) -> None:
    program = "import sys; sys.modules['torch'] = None  # which fails where it is imported\n"
    program += "from inbatch.cli.main import main; main()"
    asked = run("-c", program, *words)
    assert (asked.returncode, asked.stdout + asked.stderr) == (code, said)
    without = {name for name, command in COMMANDS.items() if command.without_torch}
    assert without == {"completion", "import", "report"}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_of_a_shell_is_printed(shell: str) -> None:
    done = run("-m", "inbatch", "completion", shell)
    assert "_inbatch" in done.stdout
    assert done.returncode == 0
    assert run("-m", "inbatch", "completion").returncode == 1
