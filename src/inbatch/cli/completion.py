"""`inbatch completion bash|zsh`: completion of commands, groups, choices and keys by the shell.

Hydra's own completion composes the configuration in the command itself, which imports torch: seconds for
each press of the tab key, and it offers only keys that a YAML file sets. This one reads `conf/`, the schema
and the signatures of targets, in a tenth of a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from inbatch.cli.commands import COMMANDS
from inbatch.cli.help import more_keys
from inbatch.cli.keys import Key, choices, config_keys, groups
from inbatch.config.commands import CONFIGS

# The words are split at blanks only; bash replaces what follows the last = or : of the word.
BASH = r"""
_inbatch() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##*[[:space:]]}"
    local replaced="${word%"${word##*[=:]}"}"
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]}" completion --words "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$replaced"}")
}
complete -o nospace -o default -F _inbatch inbatch
"""
ZSH = r"""
_inbatch() {
    local -a found
    found=("${(@f)$("${words[1]}" completion --words "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -S '' -- "${found[@]}"; else _files; fi
}
compdef _inbatch inbatch
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}
_OPTIONS = ("--help", "--cfg", "--multirun", "--config-dir", "--config-name", "--hydra-help")


def candidates(words: Sequence[str]) -> list[str]:
    """Return what the last word of a command line can become; none where it is a file's name.

    Args:
        words: of the line, without the program's name; the last may be empty.
    """
    *before, word = words
    if not before:
        return _starting(word, [f"{name} " for name in COMMANDS])
    command = COMMANDS.get(before[0])
    if command is not None and word.startswith("-"):
        own = [option.partition(" ")[0] for option in command.options]
        options = [*own, *(_OPTIONS if command.config else _OPTIONS[:1])]
        return _starting(word, [f"{name} " for name in options])
    if command is None or not command.keys:
        return _starting(word, [f"{name} " for name in SCRIPTS]) if "completion" in before else []
    name, assigned, _ = word.partition("=")
    if assigned and name in {*groups(), "hydra/launcher", "hydra/sweeper"}:
        return _starting(word, [f"{name}={choice} " for choice in choices(name)])
    chosen = dict(item.split("=", 1) for item in before[1:] if "=" in item)
    config = CONFIGS.get(command.config)
    keys = [*(config_keys(config.keys, chosen) if config else ()), *more_keys(command)]
    if assigned:
        values = [f"{name}={value} " for key in keys if key.name == name for value in key.values]
        return _starting(word, values)
    taken = () if config is None else config.groups or tuple(groups())
    return _starting(word, [f"{group}=" for group in taken]) + _next_level(word, keys)


def _next_level(word: str, keys: Iterable[Key]) -> list[str]:
    """Return keys that begin with a word, cut after their next dot: a group of keys is one candidate."""
    found = []
    for key in keys:
        if key.name.startswith(word):
            head, dot, _ = key.name[len(word) :].partition(".")
            found.append(f"{word}{head}{dot or '='}")
    return sorted(set(found))


def _starting(word: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(word))


def main(typed: str | None = None) -> None:
    """Print the script of a shell, or with ``--words LINE`` what the last word of a line can become."""
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "--words":
        line = arguments[1]
        words = line.split()[1:] + ([""] if line[-1:].isspace() else [])
        print("\n".join(candidates(words)))
    elif len(arguments) == 1 and arguments[0] in SCRIPTS:
        print(SCRIPTS[arguments[0]].strip())
    else:
        print(
            "error: name a shell: inbatch completion bash, or inbatch completion zsh",
            file=sys.stderr,
        )
        sys.exit(1)
