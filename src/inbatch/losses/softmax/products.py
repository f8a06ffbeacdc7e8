"""Matrix products of a softmax's columns, and the form in which columns enter them.

On a GPU the factors have 16 bits: a product of two is exact in float32, in which its matrix units add up. A
row is brought to a length of 16 to 32 by a power of two, which changes no digit, and what is left of its
length is divided out of the scores. So columns of 16 bits, as some encoders and a guide's float16 store have
them, are multiplied as they are. Columns of float32 are split into two float16 parts, high and low, and the
three products that count are added: under autocast, and the guide's always. Both ways a cosine errs by 3e-7,
as one of unit rows in float32 does; in TF32 it would by 1e-4, with unit rows rounded to bfloat16 by 1e-3.

Gradients are products of columns, by their high parts, with weights in 16 bits. They err by 2e-3 in bfloat16
and 3e-4 in float16 (relative, in their norm), no more than by their own rounding on the way into an encoder
under autocast. Without autocast products of float32 columns stay products of float32.

A CPU rounds what a 16-bit product returns, so there unit rows are multiplied in float32.

Shape letters: G rows of a column, R of them, C candidates, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.device import cpu_products

# Devices on which 16-bit factors give products in float32.
MATRIX_UNITS = {"cuda"}
HALVES = (torch.bfloat16, torch.float16)
# Of rows in 16 bits: far from what float16 rounds to zero. A power of two.
SHORTEST = 16.0
# Largest weight in 16 bits; float16 keeps all digits down to 1e-8 of it.
LARGEST_WEIGHT = 2.0**15
_EXPONENT = 0x7F800000  # bits of a float32


class Form(NamedTuple):
    """How columns are multiplied."""

    dtype: torch.dtype
    split: bool = False  # in high and low parts

    @property
    def in_16_bits(self) -> bool:
        """Whether factors have 16 bits."""
        return self.dtype in HALVES


@dataclass(frozen=True, slots=True)
class Factor:
    """Rows as products take them: ``score(i, j) = values_i . values_j * scale_i * scale_j``.

    Split values are the high parts, and a score adds the products of low and high ones.
    """

    values: Tensor  # [G, D]
    scale: Tensor | None = None  # [G] float32; None for 1
    parts: Tensor | None = None  # [G, 2 D], high and low; None if not split

    def __getitem__(self, part: slice) -> Factor:
        """Some of the rows."""
        scale, parts = (None if t is None else t[part] for t in (self.scale, self.parts))
        return Factor(self.values[part], scale, parts)

    def take(self, index_R: Tensor) -> Factor:
        """Rows by number, copied."""
        scale, parts = (None if t is None else t[index_R] for t in (self.scale, self.parts))
        values = self.values[index_R] if parts is None else parts[:, : self.values.shape[1]]
        return Factor(values, scale, parts)

    @property
    def in_16_bits(self) -> bool:
        """Whether products with it take weights of 16 bits."""
        return self.values.dtype in HALVES

    def exact_values(self) -> Tensor:
        """The values with all of their digits, [G, D] in float32 at least."""
        values_GD = self.values.to(torch.promote_types(self.values.dtype, torch.float32))
        if self.parts is not None:
            values_GD = values_GD + self.parts[:, values_GD.shape[1] :]
        return values_GD


def product_form(
    columns: Sequence[Tensor], *, exact_in: torch.dtype | None = None, mixed: bool = False
) -> Form:
    """The form in which columns are multiplied.

    Args:
        columns: of one device.
        exact_in: a 16-bit type that holds their values, whatever type they have; None for none.
        mixed: their gradient needs the digits of 16 bits only.
    """
    dtypes = {column.dtype for column in columns}
    if torch.float64 in dtypes:
        return Form(torch.float64)
    if columns[0].device.type not in MATRIX_UNITS:
        return Form(torch.float32)
    exact = {exact_in} if exact_in is not None else dtypes
    if len(exact) == 1 and exact <= set(HALVES):
        return Form(exact.pop())
    return Form(torch.float16, split=True) if mixed else Form(torch.float32)


def make_factor(column_GD: Tensor, form: Form, *, normalize: bool) -> tuple[Factor, Tensor | None]:
    """A column in a form, and each row's ``d values / d column``, [G, 1]; None for 1.

    The latter leaves out that lengths may not change, see `drop_radial`. Only what is normalised is split.
    """
    full_GD = column_GD.detach().to(torch.promote_types(form.dtype, torch.float32))
    if not normalize:
        return Factor(full_GD.to(form.dtype).contiguous()), None
    norm_G1 = torch.linalg.vector_norm(full_GD, dim=1, keepdim=True).clamp_min_(1e-12)
    if not form.in_16_bits:
        return Factor((full_GD / norm_G1).contiguous()), 1 / norm_G1
    slope_G1 = SHORTEST / (norm_G1.view(torch.int32) & _EXPONENT).view(torch.float32)
    scale_G = 1 / (norm_G1 * slope_G1)[:, 0]
    values_GD = full_GD * slope_G1
    high_GD = values_GD.to(form.dtype)
    if not form.split:
        return Factor(high_GD, scale_G), slope_G1
    return split_factor(
        torch.cat([high_GD, (values_GD - high_GD).to(form.dtype)], 1), scale_G
    ), slope_G1


def split_factor(parts: Tensor, scale: Tensor | None) -> Factor:
    """A factor of high and low parts, [G, 2 D]."""
    return Factor(parts[:, : parts.shape[1] // 2], scale, parts)


def multiply(
    rows: Factor, candidates: Factor, memory_RC: Tensor, *, alpha: float | Tensor
) -> Tensor:
    """``alpha * score``, [R, C], as `multiply_raw`; a tensor of one value is not waited for."""
    if not rows.in_16_bits:
        left_RD, number = rows.values, alpha
        if isinstance(number, Tensor):
            left_RD, number = left_RD * number, 1.0
        return cpu_products.product_in(memory_RC, left_RD, candidates.values.T, alpha=number)
    scores_RC = multiply_raw(rows, candidates, memory_RC).mul_(row_scale(rows, alpha))
    return scores_RC if candidates.scale is None else scores_RC.mul_(candidates.scale)


def multiply_raw(rows: Factor, candidates: Factor, memory_RC: Tensor) -> Tensor:
    """The products of values, [R, C] in float32 at least, in the given memory where the library takes it."""
    if not rows.in_16_bits:
        return cpu_products.product_in(memory_RC, rows.values, candidates.values.T)
    if rows.parts is None or candidates.parts is None:
        left, right = rows.values, candidates.values
        return torch.mm(left, right.T, out_dtype=memory_RC.dtype, out=memory_RC)
    high, low = rows.values, rows.parts[:, rows.values.shape[1] :]
    twice = high.repeat(1, 2)  # with both parts of the candidates
    torch.mm(twice, candidates.parts.T, out_dtype=memory_RC.dtype, out=memory_RC)
    add_product(memory_RC, low, candidates.values.T)
    return memory_RC


def row_scale(rows: Factor, alpha: float | Tensor) -> Tensor | float:
    """What the products of each row are multiplied by, [R, 1] or one for all."""
    return alpha if rows.scale is None else rows.scale[:, None] * alpha


def add_product(
    target: Tensor, left: Tensor, right: Tensor, factor_R: Tensor | None = None
) -> None:
    """Add ``left @ right``, which sums in the type of the target, its rows times a factor."""
    if factor_R is not None:
        target.addcmul_(cpu_products.product(left, right), factor_R[:, None])
    elif left.dtype == target.dtype:
        cpu_products.add_product(target, left, right)
    else:
        torch.addmm(target, left, right, out_dtype=target.dtype, out=target)


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


def along_values(gradient_GD: Tensor, factor: Factor) -> Tensor:
    """The product of each row with its gradient, [G]."""
    return (gradient_GD * factor.exact_values()).sum(1)


def drop_radial(gradient_GD: Tensor, factor: Factor) -> Tensor:
    """Take the part along each row out of its gradient, in place: a cosine does not depend on lengths.

    Returns:
        `along_values` of what it was.
    """
    values_GD = factor.exact_values()
    along_G = (gradient_GD * values_GD).sum(1)
    radial_G = along_G if factor.scale is None else along_G * factor.scale**2
    gradient_GD.addcmul_(values_GD, radial_G[:, None], value=-1)
    return along_G
