"""`inbatch export`: a trained model in another form; ONNX, in float32 and in 8 bits."""

from __future__ import annotations

import argparse
from pathlib import Path

from inbatch.cli.hydra_app import user_errors
from inbatch.errors import ConfigError
from inbatch.export.onnx_check import TEXTS
from inbatch.export.onnx_int8 import CPUS
from inbatch.run.export_onnx import MIN_COSINE, export_onnx
from inbatch.run.quiet import quiet


def main(typed: str | None = None) -> None:
    """Export as the command line says; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch export")
    parser.add_argument("model")
    parser.add_argument("--onnx", action="store_true")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--cpu", action="append", choices=CPUS)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--min-cosine", type=float, default=MIN_COSINE)
    parser.add_argument("--trust-remote-code", action="store_true")
    given = parser.parse_args()
    with user_errors(), quiet():
        if not given.onnx:
            raise ConfigError("inbatch export", "is told no form", "add --onnx")
        if given.cpu and not given.int8:
            raise ConfigError("--cpu", "is for files in 8 bits", "add --int8")
        folder = export_onnx(
            given.model,
            output=given.output,
            cpus=(given.cpu or [next(iter(CPUS))]) if given.int8 else (),
            texts=read_texts(given.texts) if given.texts else TEXTS,
            min_cosine=given.min_cosine,
            trust_remote_code=given.trust_remote_code,
        )
        print(f"written: {folder}")


def read_texts(file: Path) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
        ConfigError: there is no such file, it is not UTF-8, or has no text.
    """
    try:
        texts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "--texts",
            f"cannot be read ({error})",
            "give a file with a text in each line",
            value=str(file),
        ) from None
    if not texts:
        raise ConfigError(
            "--texts", "holds no text", "give a file with a text in each line", value=str(file)
        )
    return texts
