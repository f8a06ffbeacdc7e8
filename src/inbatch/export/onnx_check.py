"""Whether a model computes the same vectors with onnxruntime as with torch.

Shape letters: N texts, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from inbatch.encoder.transformer import TransformerEncoder
from inbatch.errors import ConfigError
from inbatch.export.onnx_file import INPUTS

LIMIT = 1e-5  # of a coordinate of vectors of length one, in float32
_SENTENCES = (
    "Rain.",
    "wireless mouse, black",
    "How do I renew a passport that has expired?",
    "Die Lieferung kommt am Donnerstag zwischen 9 und 11 Uhr.",
    "El paciente refiere dolor de cabeza desde hace tres días.",
    "La fonction renvoie une liste vide si le fichier n'existe pas.",
    "The bridge was closed in 1987, after engineers had found cracks in two of its seven piers.",
    "東京駅から新幹線で二時間半ほどかかります。",
    "SELECT name, price FROM products WHERE price < 20.00 ORDER BY name;",
    "Interest rates were left unchanged; inflation, at 2.4%, was slightly above what had been expected.",
)
#: Short and long ones, so that every chunk is padded and the longest are cut.
TEXTS = (*_SENTENCES, *(" ".join(_SENTENCES[:count] * 3) for count in (3, 6, 10)))


class Agreement(NamedTuple):
    """How the vectors of two computations compare.

    largest: difference of a coordinate, of vectors scaled to length one.
    mean_cosine, worst_cosine: over the texts.
    """

    largest: float
    mean_cosine: float
    worst_cosine: float


@contextmanager
def computed_by(encoder: TransformerEncoder, file: Path) -> Iterator[None]:
    """Inside, the encoder's transformer is an ONNX file; pooling and head stay torch's.

    Args:
        encoder: on the CPU.
        file: what `write_onnx` or `write_int8` has written.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def forward(**inputs: Tensor) -> tuple[Tensor]:
        fed = {name: inputs[name].long().numpy() for name in INPUTS}
        return (torch.from_numpy(session.run(None, fed)[0]),)

    backbone = encoder.backbone
    backbone.forward = forward  # of this one object, in front of that of its class
    try:
        yield
    finally:
        del backbone.forward


def compare(expected_ND: Tensor, found_ND: Tensor) -> Agreement:
    """How vectors agree with the expected ones; vectors of length zero agree with nothing but themselves."""
    difference_ND = normalize(found_ND.double(), dim=1) - normalize(expected_ND.double(), dim=1)
    cosines_N = cosine_similarity(expected_ND.double(), found_ND.double(), dim=1)
    return Agreement(
        largest=float(difference_ND.abs().max()),
        mean_cosine=float(cosines_N.mean()),
        worst_cosine=float(cosines_N.min()),
    )


def agreement(encoder: TransformerEncoder, file: Path, texts: Sequence[str]) -> Agreement:
    """Compare the vectors of texts, computed by an ONNX file, with torch's."""
    expected_ND = encoder.encode(texts)
    with computed_by(encoder, file):
        found_ND = encoder.encode(texts)
    return compare(expected_ND, found_ND)


def check_float32(found: Agreement, name: str) -> None:
    """Refuse a file that computes something else than the model.

    Raises:
        ConfigError: vectors differ by more than rounding, or are not numbers.
    """
    if not found.largest <= LIMIT:
        raise ConfigError(
            name,
            f"as ONNX gives other vectors than torch, by {found.largest:.1e} of their length",
            f"give a model of another architecture; the limit is {LIMIT:.0e}",
        )


def check_int8(found: Agreement, file: str, *, least: float) -> None:
    """Refuse a file in 8 bits whose vectors point elsewhere.

    Args:
        found: beside the vectors of the model in float32.
        file: its name.
        least: the worst cosine that is accepted.

    Raises:
        ConfigError: the worst cosine is lower, or not a number.
    """
    if not found.worst_cosine >= least:
        raise ConfigError(
            file,
            f"gives vectors with a cosine of {found.worst_cosine:.6f} to the model's at worst, "
            f"{found.mean_cosine:.6f} on average",
            f"use the file in float32, another --cpu, or accept it with --min-cosine below {least:g}",
        )
