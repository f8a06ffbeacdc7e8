"""Stored types against sentence-transformers' quantize_embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.util import quantize_embeddings

from inbatch.corpus.form import Form, read_ranges
from inbatch.errors import ConfigError
from inbatch.evaluation.quantise import ranges_of

ROWS = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)).numpy()
ROWS[:, 3] = 0.25  # a dimension without a range


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_types_are_those_of_sentence_transformers(dtype: str) -> None:
    form = Form(dimension=20, dtype=dtype)  # type: ignore[arg-type]
    calibration = ROWS[:30]
    found = form.stored(ROWS, ranges_of(calibration))
    wanted = quantize_embeddings(ROWS, dtype, calibration_embeddings=calibration)  # type: ignore[arg-type]
    assert np.array_equal(found, wanted)
    assert found.dtype == wanted.dtype == form.numpy_dtype
    assert found.shape == (50, form.width)


def test_a_cut_may_be_scaled_to_length_one() -> None:
    rows = torch.from_numpy(ROWS)
    assert torch.equal(Form(dimension=8).cut(rows), rows[:, :8])
    cut = Form(dimension=8, normalize=True).cut(rows)
    torch.testing.assert_close(cut, rows[:, :8] / rows[:, :8].norm(dim=1, keepdim=True))


def test_values_beyond_the_type_are_refused() -> None:
    form = Form(dimension=2, dtype="float16")
    assert form.stored(np.float32([[1, 65504]])).dtype == np.float16
    with pytest.raises(ConfigError, match="dtype='float16' does not hold all embeddings"):
        form.stored(np.float32([[1, 1e6]]))


def test_ranges_are_read_from_a_file_or_a_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "ranges.npy", ranges_of(ROWS))
    for path in (tmp_path, tmp_path / "ranges.npy"):
        assert np.array_equal(read_ranges(path, 20), ranges_of(ROWS))
    with pytest.raises(ConfigError, match=r"holds \[2, 20\] values where 2 for each of 8"):
        read_ranges(tmp_path, 8)
    with pytest.raises(ConfigError, match="holds no ranges"):
        read_ranges(tmp_path / "nothing", 20)
