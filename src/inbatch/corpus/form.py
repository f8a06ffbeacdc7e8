"""The form in which embeddings are stored: how many dimensions of them, how long, in which type.

Shape letters: n texts, D dimensions that are kept, W values of a stored row.

What the types of fewer bits hold is told by `inbatch.evaluation.quantise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final, get_args

import numpy as np
import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.evaluation.quantise import WITH_RANGES, quantise

DType = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
_NUMPY = {"binary": "int8", "ubinary": "uint8"}  # of what is stored, where the name is another


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What becomes of an embedding before it is stored, in the order of the fields.

    dimension: leading dimensions that are kept, D.
    normalize: scale what is kept to length one.
    dtype: type of the stored values.
    """

    dimension: int
    normalize: bool = False
    dtype: DType = "float32"

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """Type of the stored rows."""
        return np.dtype(_NUMPY.get(self.dtype, self.dtype))

    @property
    def width(self) -> int:
        """W: D, or bytes where each holds the signs of 8 dimensions."""
        return -(-self.dimension // 8) if self.is_binary else self.dimension

    @property
    def is_binary(self) -> bool:
        """Whether signs are stored."""
        return self.dtype in ("binary", "ubinary")

    @property
    def needs_ranges(self) -> bool:
        """Whether the least and the largest value of each dimension have to be known."""
        return self.dtype in WITH_RANGES

    def describe(self) -> str:
        """In words, for messages: "float32 of 384 dimensions"."""
        length = ", normalized" if self.normalize else ""
        return f"{self.dtype} of {self.dimension} dimensions{length}"

    def cut(self, embeddings_nD: Tensor) -> Tensor:
        """The dimensions that are kept, at their length, float32 [n, D]."""
        kept_nD = embeddings_nD[:, : self.dimension].float()
        return torch.nn.functional.normalize(kept_nD) if self.normalize else kept_nD

    def stored(self, rows_nD: np.ndarray, ranges_2D: np.ndarray | None = None) -> np.ndarray:
        """Rows as they are stored, [n, W].

        Args:
            rows_nD: from `cut`, finite.
            ranges_2D: least and largest value of each dimension, float32; for int8 and uint8.

        Raises:
            ConfigError: a value is above 65504, the largest of float16.
        """
        if self.dtype == "float16":
            with np.errstate(over="ignore"):
                rows_nD = rows_nD.astype(np.float16)
            if not np.isfinite(rows_nD).all():
                problem = "does not hold all embeddings: some are above 65504"
                raise ConfigError("dtype", problem, "set dtype=float32", value=self.dtype)
            return rows_nD
        return quantise(rows_nD, self.dtype, ranges_2D=ranges_2D)


def read_ranges(path: str | Path, dimension: int, *, key: str = "ranges") -> np.ndarray:
    """Ranges from the .npy file of that name, or from a folder of embeddings that has one.

    Raises:
        ConfigError: there is none, or one of another number of dimensions.
    """
    file = Path(path) / "ranges.npy" if Path(path).is_dir() else Path(path)
    try:
        ranges_2D = np.load(file)
    except (OSError, ValueError, EOFError):
        raise ConfigError(
            key,
            "holds no ranges",
            "name a folder of int8 embeddings, or a .npy file",
            value=str(path),
        ) from None
    if ranges_2D.shape != (2, dimension):
        raise ConfigError(
            key,
            f"holds {list(ranges_2D.shape)} values where 2 for each of {dimension} dimensions are needed",
            "name the folder of embeddings of this model, with as many dimensions",
            value=str(path),
        )
    return ranges_2D.astype(np.float32)


DTYPES: tuple[str, ...] = get_args(DType)
