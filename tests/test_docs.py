"""The README's Python runs; documented command lines and settings compose and pass the checks."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.launching import run
from helpers.runs import compose_run
from inbatch.cli.commands import COMMANDS
from inbatch.config.check import check_config

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for name in ("conf", "scripts", "slurm", "src") for page in (ROOT / name).rglob("*.md")),
]


# Settings that the text names as changes of others.
BESIDE = {"logger.wandb": "logger=wandb", "trainer.max_epochs=-1": "trainer.max_steps=9"}


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def _commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        for block in _blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["inbatch"]:
                    found.append((f"{page.relative_to(ROOT)}: {line.strip()[:60]}", words[1:]))
    return found


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = _blocks(ROOT / "README.md", "python")
    (tmp_path / "example.py").write_text(code)
    done = run([sys.executable, str(tmp_path / "example.py")], folder=tmp_path)
    assert done.code == 0, done.output
    *_, first, second = done.output.splitlines()
    assert re.fullmatch(r"ndcg@10 0\.\d\d -> 1\.00", first)
    right, wrong = map(float, re.findall(r"-?\d+\.\d+", second))
    assert right > 2 * wrong
    assert "Tip" not in done.output


@pytest.mark.parametrize(("where", "words"), _commands(), ids=lambda value: str(value)[:80])
def test_a_documented_command_is_one(where: str, words: list[str]) -> None:
    command, *rest = words
    assert command in COMMANDS, where
    if COMMANDS[command].config != "train" or any(
        option in words for option in ("--help", "--cfg")
    ):
        return
    keys = [word for word in rest if "=" in word and "..." not in word]
    keys = [
        key
        for key in keys
        if not key.startswith(("slurm.", "prepare.", "plan.", "inspect.", "hydra"))
    ]
    _check(keys, sweep=not {"-m", "slurm.job=sweep"}.isdisjoint(rest))


def _spans() -> list[tuple[str, str]]:
    """Overrides in the text, as `sampler=no_duplicates`; they are to work as they are said."""
    pages = [ROOT / "README.md", ROOT / "conf" / "README.md"]
    spans = [
        (page, span) for page in pages for span in re.findall(r"`([^`\n]+)`", page.read_text())
    ]
    key = r"(?!key=)[a-z_]+(?:\.[a-z_]+)*=[^ ]+"
    return [
        (str(page.relative_to(ROOT)), span)
        for page, span in dict.fromkeys(spans)
        if re.fullmatch(rf"{key}(?: {key})*", span)
        and not re.search(r"[A-Z<]{3}|\.\.\.|=file$", span)
    ]


@pytest.mark.parametrize(("page", "span"), _spans())
def test_settings_that_the_text_names_work(page: str, span: str) -> None:
    keys = [key for key in shlex.split(span) if not key.startswith("hydra")]
    beside = [other for start, other in BESIDE.items() if span.startswith(start)]
    _check([*beside, *keys], sweep=False)


@pytest.mark.parametrize("experiment", ["prostheses_mnrl", "supplies_minilm_mnrl"])
@pytest.mark.parametrize("remedy", ["sampler=no_duplicates", "loss=cached_gist guide=minilm"])
def test_remedies_for_duplicates_work_for_the_experiments_they_are_for(
    experiment: str, remedy: str
) -> None:
    assert all(
        f"`{text}`" in (ROOT / "conf" / "README.md").read_text() for text in (experiment, remedy)
    )
    _check([f"experiment={experiment}", *remedy.split()], sweep=False)


def _check(keys: list[str], *, sweep: bool) -> None:
    """Compose and check a run; what the reader brings along has a placeholder, a sweep its first values."""
    if sweep:
        keys = [key.split(",")[0] for key in keys]
    needs = {"encoder": "tiny", "data.train": "x.csv", "data.eval": "x.csv"}
    given = " ".join(keys)
    placeholders = [
        f"{key}={value}"
        for key, value in needs.items()
        if not re.search(rf"(^| )({re.escape(key)}[.=]|experiment=)", given) or "null" in given
    ]
    config = compose_run(*placeholders, *keys)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "x.csv")
    check_config(config)
