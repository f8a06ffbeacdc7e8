"""Matrix products of a softmax's columns, and the form in which columns enter them.

16-bit columns, as autocast and a float16 guide store make them, are multiplied as they are on a GPU: a
product of two 16-bit numbers is exact in float32, in which its matrix units add up. A row is brought to a
length of 16 to 32 by a power of two, which changes no digit, and what is left of its length is divided out
of the scores. So a cosine errs by 3e-7, as one of unit rows in float32 does, where unit rows rounded to
bfloat16 would err by 1e-3. A CPU rounds what a 16-bit product returns, so there unit rows are multiplied in
float32.

Shape letters: G rows of a column, R of them, C candidates, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Devices on which 16-bit factors give products in float32.
MATRIX_UNITS = {"cuda"}
HALVES = (torch.bfloat16, torch.float16)
# Of rows in 16 bits: far from what float16 rounds to zero. A power of two.
SHORTEST = 16.0
# Largest weight in 16 bits; float16 keeps all digits down to 1e-9 of it.
LARGEST_WEIGHT = 2.0**15
_EXPONENT = 0x7F800000  # bits of a float32


@dataclass(frozen=True, slots=True)
class Factor:
    """Rows as a product takes them: ``score(i, j) = values_i . values_j * scale_i * scale_j``."""

    values: Tensor  # [G, D]
    scale: Tensor | None  # [G] float32; None for 1

    def __getitem__(self, part: slice) -> Factor:
        """Some of the rows."""
        return Factor(self.values[part], None if self.scale is None else self.scale[part])

    @property
    def in_16_bits(self) -> bool:
        """Whether products with it take weights of 16 bits."""
        return self.values.dtype in HALVES


def product_dtype(columns: Sequence[Tensor], exact_in: torch.dtype | None = None) -> torch.dtype:
    """The type in which columns are multiplied.

    Args:
        columns: of one device.
        exact_in: a 16-bit type that holds their values, whatever type they have; None for none.
    """
    dtypes = {column.dtype for column in columns}
    if torch.float64 in dtypes:
        return torch.float64
    exact = {exact_in} if exact_in is not None else dtypes
    if len(exact) == 1 and exact <= set(HALVES) and columns[0].device.type in MATRIX_UNITS:
        return exact.pop()
    return torch.float32


def make_factor(
    column_GD: Tensor, dtype: torch.dtype, *, normalize: bool
) -> tuple[Factor, Tensor | None]:
    """A column in the type of its products, and each row's ``d values / d column``, [G, 1]; None for 1.

    The latter leaves out that lengths may not change, see `drop_radial`.
    """
    full_GD = column_GD.detach()
    full_GD = full_GD.to(torch.promote_types(dtype, torch.float32))
    if not normalize:
        return Factor(full_GD.to(dtype).contiguous(), None), None
    norm_G1 = torch.linalg.vector_norm(full_GD, dim=1, keepdim=True).clamp_min_(1e-12)
    if dtype not in HALVES:
        return Factor((full_GD / norm_G1).contiguous(), None), 1 / norm_G1
    slope_G1 = SHORTEST / (norm_G1.view(torch.int32) & _EXPONENT).view(torch.float32)
    return Factor((full_GD * slope_G1).to(dtype), 1 / (norm_G1 * slope_G1)[:, 0]), slope_G1


def multiply(rows: Factor, candidates: Factor, out_RC: Tensor, *, alpha: float = 1.0) -> None:
    """Write ``alpha * score``, [R, C]."""
    if not rows.in_16_bits:
        torch.addmm(out_RC, rows.values, candidates.values.T, beta=0, alpha=alpha, out=out_RC)
        return
    multiply_raw(rows, candidates, out_RC)
    out_RC.mul_(row_scale(rows, alpha))
    if candidates.scale is not None:
        out_RC.mul_(candidates.scale)


def multiply_raw(rows: Factor, candidates: Factor, out_RC: Tensor) -> None:
    """Write the products of values, [R, C] in float32 at least."""
    if rows.in_16_bits:
        torch.mm(rows.values, candidates.values.T, out_dtype=out_RC.dtype, out=out_RC)
    else:
        torch.mm(rows.values, candidates.values.T, out=out_RC)


def row_scale(rows: Factor, alpha: float) -> Tensor | float:
    """What the products of each row are multiplied by, [R, 1] or a number."""
    return alpha if rows.scale is None else rows.scale[:, None] * alpha


def add_product(target_RD: Tensor, weights_RC: Tensor, values_CD: Tensor) -> None:
    """Add ``weights @ values`` to a gradient, which sums in its own type."""
    if weights_RC.dtype == target_RD.dtype:
        target_RD.addmm_(weights_RC, values_CD)
    else:
        dtype = target_RD.dtype
        torch.addmm(target_RD, weights_RC, values_CD, out_dtype=dtype, out=target_RD)


def row_weight(rows: Factor, weight_R: Tensor) -> Tensor:
    """Weights of rows with their scale, in the unit of `weight_unit`, [R]."""
    unit = weight_unit(rows)
    if rows.scale is not None:
        weight_R = weight_R * rows.scale
    return weight_R if unit == 1 else weight_R * unit


def weight_unit(factor: Factor) -> float:
    """What weights are multiplied by, so that they fill the range of their type."""
    if not factor.in_16_bits:
        return 1.0
    return LARGEST_WEIGHT if factor.scale is None else LARGEST_WEIGHT * SHORTEST**2


def drop_radial(gradient_GD: Tensor, factor: Factor) -> None:
    """Take the part along each row out of its gradient, in place: a cosine does not depend on lengths."""
    values_GD = factor.values.to(gradient_GD.dtype)
    radial_G = (gradient_GD * values_GD).sum(1)
    if factor.scale is not None:
        radial_G *= factor.scale**2
    gradient_GD.addcmul_(values_GD, radial_G[:, None], value=-1)
