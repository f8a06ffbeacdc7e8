"""`inbatch export --onnx`: a model or the model of a run -> ONNX files that compute the same vectors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.st_read import read_saved_encoder
from inbatch.encoder.token_layers import WeightedLayerPooling
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.errors import ConfigError
from inbatch.export.onnx_check import TEXTS, Agreement, agreement, check_float32, check_int8
from inbatch.export.onnx_file import FLOAT32_FILE, FOLDER, check_packages, write_onnx
from inbatch.export.onnx_int8 import write_int8
from inbatch.files import replaced_folder
from inbatch.folder.named import find_model

MIN_COSINE = 0.95


def export_onnx(
    model: str,
    *,
    output: Path | None = None,
    cpus: Sequence[str] = (),
    texts: Sequence[str] = TEXTS,
    min_cosine: float = MIN_COSINE,
    trust_remote_code: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write ``onnx/`` into a model's directory, in place of an older one, once it is known to agree.

    Args:
        model: a model's directory, a run's folder or, with `output`, any name of a model.
        output: writes a whole model there, an adapter merged into its weights; None adds to `model`.
        cpus: of `onnx_int8.CPUS`, to write a file in 8 bits for each.
        texts: whose vectors are compared.
        min_cosine: the lowest cosine between a text's vectors in float32 and in 8 bits that is accepted.
        trust_remote_code: run Python code that the model brings along.
        say: is told of each file.

    Returns:
        The folder of the ONNX files.

    Raises:
        ConfigError: packages are missing, the model is none or cannot be written, or the vectors differ;
            then no ONNX file is left.
    """
    check_packages()
    directory = find_model(model)
    load = partial(build_encoder, trust_remote_code=trust_remote_code)
    encoder = _transformer(load(str(directory)), model)
    if output is not None:
        encoder.save(output)
        _copy_card(directory, output)
        directory, encoder = output, _transformer(load(str(output)), model)
    elif encoder.adapter is not None or not _is_local(model):
        what = "holds an adapter beside its weights" if _is_local(model) else "is no directory here"
        fix = "add --output FOLDER, for a whole model with its ONNX files"
        raise ConfigError("MODEL_OR_RUN", what, fix, value=model)
    encoder.eval()
    transformer, _ = read_saved_encoder(
        directory, weights=False, trust_remote_code=trust_remote_code
    )
    with replaced_folder(transformer / FOLDER) as folder:
        float32 = folder / FLOAT32_FILE
        write_onnx(encoder.backbone, float32)
        found = agreement(encoder, float32, texts)
        check_float32(found, model)
        say(_line(float32, found, len(texts)))
        for cpu in cpus:
            int8 = write_int8(float32, cpu)
            found = agreement(encoder, int8, texts)
            say(_line(int8, found, len(texts)))
            check_int8(found, int8.name, least=min_cosine)
    return transformer / FOLDER


def _is_local(model: str) -> bool:
    return Path(model).expanduser().is_dir()


def _transformer(encoder: Encoder, model: str) -> TransformerEncoder:
    if not isinstance(encoder, TransformerEncoder):
        raise ConfigError(
            "MODEL_OR_RUN",
            "is a static encoder, whose vectors are looked up and not computed",
            "use it as it is: sentence-transformers reads a static encoder with its backend torch only",
            value=model,
        )
    if any(isinstance(layer, WeightedLayerPooling) for layer in encoder.token_head):
        raise ConfigError(
            "MODEL_OR_RUN",
            "pools several layers, and an ONNX file holds the last one",
            "use it as it is, with the backend torch",
            value=model,
        )
    return encoder


def _copy_card(directory: Path, output: Path) -> None:
    """What belongs to a model besides what its encoder writes: its card, and the images in it."""
    for name in ("README.md", "LICENSE"):
        if (directory / name).is_file():
            shutil.copyfile(directory / name, output / name)
    if (directory / "plots").is_dir():
        shutil.copytree(directory / "plots", output / "plots")


def _line(file: Path, found: Agreement, num_texts: int) -> str:
    """A file, its size, and how its vectors agree."""
    mib = sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*")) / 2**20
    return (
        f"{FOLDER}/{file.name}: {mib:.1f} MiB; vectors of {num_texts} texts differ from torch's by "
        f"{found.largest:.1e} at most, cosine {found.mean_cosine:.6f} on average, "
        f"{found.worst_cosine:.6f} at worst"
    )
