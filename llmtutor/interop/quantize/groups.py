"""Chapter 23, export: which entries of a matrix share a scale.

All of them, those of a row, or those of a short piece of a row. The fewer share one, the closer it
fits them, and the more scales there are to store.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from llmtutor.checks import check_integer, check_name

Share = Literal["tensor", "row"] | int
"""All entries, those of a row, or so many that stand side by side in a row."""


def check_share(share: Share) -> None:
    """Raise ``ValueError`` unless it is "tensor", "row" or a whole number above 0."""
    if isinstance(share, str):
        check_name("share", share, ("tensor", "row"))
    else:
        check_integer("share", share, 1)


def to_groups(
    matrix: Shaped[Tensor, "rows columns"], share: Share
) -> Shaped[Tensor, "group_rows groups size"]:
    """The entries that share a scale, along the last axis.

    Where a row cannot be divided, its last group is filled up with zeros, which change no range
    that holds 0.

    >>> to_groups(torch.arange(6.0).view(2, 3), 2).tolist()
    [[[0.0, 1.0], [2.0, 0.0]], [[3.0, 4.0], [5.0, 0.0]]]
    """
    if share == "tensor":
        return matrix.reshape(1, 1, -1)
    size = group_size(matrix.shape[1], share)
    return F.pad(matrix, (0, -matrix.shape[1] % size)).unflatten(1, (-1, size))


def from_groups(groups: Tensor, rows: int, columns: int) -> Tensor:
    """The matrix (rows, columns) that the groups were made of."""
    return groups.reshape(rows, -1)[:, :columns]


def group_size(columns: int, share: Share) -> int:
    """Entries of a row that share a scale.

    >>> group_size(128, "row"), group_size(128, 32), group_size(20, 32)
    (128, 32, 20)
    """
    return columns if isinstance(share, str) else min(share, columns)


def check_matrix(matrix: Tensor) -> None:
    """Raise ``ValueError`` unless it is a matrix of finite floats."""
    if matrix.ndim != 2 or not matrix.is_floating_point() or not matrix.numel():
        raise ValueError(
            f"expected a matrix of floats, got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("expected a matrix of finite numbers, got some that are nan or infinite")
