"""`inbatch doctor`: what holds on this machine or cluster; the first command on a new one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import yaml

from inbatch.cli.hydra_app import user_errors
from inbatch.config.targets import check_targets
from inbatch.doctor.checks.table import CHECKS
from inbatch.doctor.config import DoctorConfig
from inbatch.doctor.examine import doctor
from inbatch.errors import ConfigError
from inbatch.run.quiet import quiet


def main(typed: str | None = None) -> int:
    """Look at this machine; `typed` is not needed, no process repeats it. Returns the exit code."""
    with user_errors(), quiet():
        return doctor(read_config(sys.argv[1:]), CHECKS)


def read_config(arguments: Sequence[str]) -> DoctorConfig:
    """Read ``key=value`` of the command line.

    Raises:
        ConfigError: an argument is none, or a key or a value is not one that `DoctorConfig` takes.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            fix = "set output_dir=FOLDER, device=cpu or timeout_s=60"
            raise ConfigError(repr(argument), "is not key=value", fix)
        values[key] = text if key == "output_dir" else yaml.safe_load(text)
    try:
        check_targets({"_target_": f"{DoctorConfig.__module__}.DoctorConfig", **values}, "doctor")
    except ConfigError as error:
        raise error.under(error.key.removeprefix("doctor.")) from None
    return DoctorConfig(**values)
