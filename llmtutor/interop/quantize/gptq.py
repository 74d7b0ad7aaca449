"""Chapter 23, export: rounding that knows what the layer reads, and mends each error at once.

Rounding to nearest asks that every weight stays close. A layer should rather give close *outputs*,
``‖W X − Ŵ X‖²``, for inputs X as it sees them. GPTQ (Frantar et al. 2023) rounds column after
column, and after each one moves the columns that are still to come so that they make up for the
error as well as they can.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from llmtutor.checks import check_at_least, check_number
from llmtutor.interop.quantize.format import Rounded
from llmtutor.interop.quantize.groups import check_matrix, group_size, to_groups
from llmtutor.interop.quantize.integers import IntegerGrid, Integers

BLOCK, DAMPING = 128, 0.01
"""As in the paper's section 4 and its code."""


def hessian(inputs: Float[Tensor, "n columns"]) -> Float[Tensor, "columns columns"]:
    """``2 Xᵀ X / n`` in float64, X with one input a row: how the squared error of a row bends.

    >>> hessian(torch.tensor([[1.0, 0.0], [1.0, 2.0]])).tolist()
    [[2.0, 2.0], [2.0, 4.0]]
    """
    x = inputs.double()
    return 2 * x.T @ x / len(x)


def output_error(
    exact: Float[Tensor, "rows columns"],
    rounded: Float[Tensor, "rows columns"],
    bend: Float[Tensor, "columns columns"],
) -> float:
    """``‖W X − Ŵ X‖² / n``, the mean over the inputs behind the Hessian ``bend``."""
    off = exact.double() - rounded.double()
    return float(((off @ bend) * off).sum() / 2)


def gptq(
    matrix: Float[Tensor, "rows columns"],
    bend: Float[Tensor, "columns columns"],
    format: Integers,
    *,
    block: int = BLOCK,
    damping: float = DAMPING,
) -> Rounded:
    """A matrix rounded for the inputs behind the Hessian ``bend`` (section 3, algorithm 1).

    Column i is rounded, its error divided by the i-th pivot of the Cholesky factor U of the inverse
    Hessian, ``H⁻¹ = Uᵀ U``, and taken off the later columns along row i of U. That is the exact
    step of OBQ (Frantar, Singh and Alistarh 2022) for this order; ``block`` only decides how many
    columns are mended one by one before all the rest is mended in one product.

    - A Hessian of few inputs is singular. ``damping`` times the mean of its diagonal is added to
      the diagonal first; the paper takes 0.01.
    - A column whose input was 0 every time (its diagonal is 0) is *dead*. Its weights become 0 and
      its diagonal 1, as in the code of the paper: nothing is known of what they should do.
    - The scales of a group are fitted when the first of its columns comes, to weights that are
      moved already; those of a row or of the whole matrix at the start.

    Raises:
        ValueError: sizes that do not fit, a Hessian that is not finite, of no input at all (all
            columns dead) or not positive definite even so; a block that cuts groups in two.
    """
    check_matrix(matrix)
    check_at_least(1, block=block)
    rows, columns = matrix.shape
    size = group_size(columns, format.share)
    if not isinstance(format.share, str) and size < columns and block % size:
        raise ValueError(f"a block of {block} columns would cut groups of {size}: take a multiple")
    left, factor = _prepared(matrix, bend, damping)
    grids = _whole_grid(left, format)
    codes = torch.empty(rows, columns, dtype=torch.uint8)
    for first in range(0, columns, block):
        last = min(first + block, columns)
        errors = torch.zeros(rows, last - first, dtype=torch.float64)
        for i in range(first, last):
            if not isinstance(format.share, str) and i % size == 0:
                grids.append(format.fit(left[:, i : i + size].float()))
            column = left[:, i].clone()
            codes[:, i : i + 1] = grids[-1].codes(column[:, None].float())
            value = grids[-1].values(codes[:, i : i + 1])[:, 0]
            errors[:, i - first] = (column - value) / factor[i, i]
            left[:, i:last] -= errors[:, i - first, None] * factor[i, i:last]
        left[:, last:] -= errors @ factor[first:last, last:]
    return Rounded(codes, _joined(grids, format), format)


def _prepared(matrix: Tensor, bend: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """The weights to work on, and U of the damped inverse Hessian."""
    columns = matrix.shape[1]
    check_number("damping", damping)
    if bend.shape != (columns, columns) or not bool(torch.isfinite(bend).all()):
        raise ValueError(
            f"expected a finite Hessian of shape {(columns, columns)}, got {tuple(bend.shape)}"
        )
    left, bend = matrix.double().clone(), bend.double().clone()
    diagonal = bend.diagonal()
    dead = diagonal == 0
    if bool(dead.all()):
        raise ValueError("expected inputs to calibrate on, got none but zeros")
    left[:, dead] = 0
    diagonal[dead] = 1
    diagonal += damping * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(bend)
    if int(failed):
        raise ValueError(
            f"the Hessian is singular with a damping of {damping}: give more inputs than columns "
            f"({columns}), or more damping"
        )
    return left, torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def _whole_grid(left: Tensor, format: Integers) -> list[IntegerGrid]:
    """One grid for all columns, where a row or the matrix shares it."""
    if not isinstance(format.share, str):
        return []
    grid = format.fit(to_groups(left.float(), format.share))
    return [IntegerGrid(grid.bits, grid.scale[:, 0], grid.zero[:, 0], grid.symmetric)]


def _joined(grids: list[IntegerGrid], format: Integers) -> IntegerGrid:
    """Of all groups, (rows, groups, 1)."""
    scale = torch.stack([grid.scale for grid in grids], 1)
    zero = torch.stack([grid.zero for grid in grids], 1)
    return IntegerGrid(format.bits, scale, zero, format.symmetric)
