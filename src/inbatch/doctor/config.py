"""The keys of `inbatch doctor`; nothing heavy is imported, so that its help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inbatch.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorConfig:
    """Keys of `inbatch doctor`.

    Args:
        output_dir: folder of doctor.json, whose storage is measured.
        device: auto takes a GPU where there is one.
        timeout_s: seconds that a check may take on all ranks before those that do not answer are named.
    """

    output_dir: str = "."
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ConfigError("timeout_s", "is too small", "set seconds", value=self.timeout_s)
