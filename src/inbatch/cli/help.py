"""The text of `inbatch --help` and `inbatch COMMAND --help`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable

from inbatch.cli.commands import COMMANDS, Command
from inbatch.cli.keys import Key, choices, config_keys, groups, target_keys
from inbatch.config import schema
from inbatch.config.commands import CONFIGS
from inbatch.doctor.config import DoctorConfig

MAX_WIDTH = 100

_OPTIONS = [
    ("--cfg job", "print the resolved configuration and run nothing; every key is in it"),
    ("-m, --multirun", "one run for each value: -m optimizer.lr=1e-5,2e-5"),
    (
        "--config-dir FOLDER",
        "add a folder that is laid out like conf/, with experiments of your own",
    ),
    ("--hydra-help", "all options of Hydra, which composes the configuration"),
]


def overview() -> str:
    """Return the text of `inbatch --help`."""
    lines = [(name, command.summary) for name, command in COMMANDS.items()]
    return "\n\n".join(
        [
            "usage: inbatch COMMAND [KEY=VALUE ...] [OPTION ...]",
            "Distributed training of text bi-encoders (sentence-embedding models).",
            _section("Commands", lines),
            _examples(
                [
                    "inbatch train experiment=demo",
                    "inbatch train encoder=minilm data.train=pairs.csv output_dir=outputs/pairs",
                    "inbatch evaluate encoder.model=outputs/pairs/model data.eval=test.csv",
                ]
            ),
            "inbatch COMMAND --help lists the keys and choices of a command.\n"
            'eval "$(inbatch completion bash)" (or zsh) completes them with the tab key.',
        ]
    )


def command_help(name: str) -> str:
    """Return the text of `inbatch COMMAND --help`."""
    command = COMMANDS[name]
    parts = [f"usage: {command.usage}", f"{command.summary}.", _examples(command.examples)]
    if command.keys:
        title = "The most important keys" if command.config else "Keys"
        parts.append(_section(title, _shown(important_keys(command))))
    if command.options:
        parts.append(_section("Options", command.options.items()))
    if command.config:
        parts += [
            _section("Groups: GROUP=CHOICE takes one file of conf/GROUP", _groups(command)),
            _section("Options", _options(name)),
            _more(name),
        ]
    return "\n\n".join(parts)


def important_keys(command: Command) -> list[Key]:
    """Return the keys that a command's help lists, with their descriptions."""
    known = {key.name: key for key in config_keys(schema.RunConfig, {}) if command.config}
    own = CONFIGS.get(command.config)
    if own is not None and command.config != "train":  # which may refer to that of a run
        keys = config_keys(own.keys, {})
        known |= {key.name: key for key in keys if key.text or key.name not in known}
    known |= {key.name: key for key in more_keys(command)}
    return [known.get(name) or Key(name, groups().get(name, "")) for name in command.keys]


def more_keys(command: Command) -> list[Key]:
    """Return the keys of a command that are none of a run."""
    if command.module.endswith(".submit"):
        taken = target_keys("inbatch.cluster.job_script.Slurm")
        return [Key(f"slurm.{name}", text) for name, text in taken.items()]
    if command.module.endswith(".doctor"):
        return list(config_keys(DoctorConfig, {}))
    own = {"prepare": "PrepareConfig", "plan": "PlanConfig", "inspect": "InspectConfig"}
    name = command.module.rpartition(".")[2]
    if name in own:
        taken = target_keys(f"{command.module}.{own[name]}")
        return [Key(f"{name}.{key}", text) for key, text in taken.items()]
    return []


def _groups(command: Command) -> Iterable[tuple[str, str]]:
    chosen = CONFIGS[command.config].groups
    for group, text in groups().items():
        if chosen is None or group in chosen:
            yield (
                group,
                f"{text}. Choices: {', '.join(choices(group))}",
            )


def _options(name: str) -> list[tuple[str, str]]:
    if name == "submit":
        return [("--dry-run", "print the job and submit nothing")]
    return [option for option in _OPTIONS if name == "train" or "multirun" not in option[0]]


def _more(name: str) -> str:
    if name == "submit":
        return f"Everything else: {schema.CONF / 'README.md'}"
    return (
        "Every key can be set, also one that no file of conf/ names: loss.temperature=0.02.\n"
        f"All keys and what they mean: {schema.CONF / 'README.md'}"
    )


def _shown(keys: Iterable[Key]) -> Iterable[tuple[str, str]]:
    for key in keys:
        yield key.name, f"{key.text} (default: {key.default})" if key.default else key.text


def _examples(lines: Iterable[str]) -> str:
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def _section(title: str, lines: Iterable[tuple[str, str]]) -> str:
    """Return a title and lines of two columns, the second of which is wrapped."""
    rows = list(lines)
    indent = max(len(name) for name, _ in rows) + 4
    width = max(indent + 30, min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns))
    wrapped = [
        textwrap.fill(
            f"  {name:<{indent - 2}}{text.replace('`', '')}",
            width,
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
            break_long_words=False,
        ).rstrip()
        for name, text in rows
    ]
    return "\n".join([f"{title}:", *wrapped])
