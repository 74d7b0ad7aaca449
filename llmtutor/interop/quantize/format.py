"""Chapter 23, export: what every way to write a matrix in few bits has in common.

A *format* says how many bits an entry gets and who shares a scale. Fitted to a matrix it gives a
*grid*: the values that each group of entries may take. An entry becomes the number of one of them,
its *code*.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from llmtutor.interop.quantize.groups import Share, check_matrix, from_groups, to_groups


@runtime_checkable
class Grid(Protocol):
    """The values that the entries of each group may take; groups lie along the last axis."""

    def codes(self, x: Float[Tensor, "*groups size"]) -> UInt8[Tensor, "*groups size"]:
        """The number of the nearest value."""

    def values(self, codes: UInt8[Tensor, "*groups size"]) -> Float[Tensor, "*groups size"]:
        """The values with these numbers, in float32."""

    def stored(self) -> dict[str, Tensor]:
        """What has to be kept beside the codes."""

    def rows(self, chosen: Tensor) -> "Grid":
        """The grid of some rows of groups alone."""


@runtime_checkable
class Format(Protocol):
    """How a matrix is written."""

    @property
    def bits(self) -> int:
        """Of a code."""

    @property
    def share(self) -> Share:
        """Who shares a scale."""

    def fit(self, groups: Float[Tensor, "*groups size"]) -> Grid:
        """The grid for these numbers."""

    def restored(self, stored: dict[str, Tensor], rows: int) -> Grid:
        """The grid that was stored so, for so many rows of groups."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""


class Rounded(NamedTuple):
    """A matrix in few bits."""

    codes: UInt8[Tensor, "rows columns"]
    grid: Grid
    format: Format

    def matrix(self) -> Float[Tensor, "rows columns"]:
        """The matrix that comes back, in float32."""
        return decoded(self.codes, self.grid, self.format.share)


def nearest(matrix: Float[Tensor, "rows columns"], format: Format) -> Rounded:
    """Each entry to the nearest value of its group's grid: *rounding to nearest*.

    Raises:
        ValueError: no matrix of finite floats; scales that the format cannot hold.
    """
    check_matrix(matrix)
    groups = to_groups(matrix.float(), format.share)
    grid = format.fit(groups)
    return Rounded(from_groups(grid.codes(groups), *matrix.shape), grid, format)


def decoded(codes: UInt8[Tensor, "rows columns"], grid: Grid, share: Share) -> Tensor:
    """The matrix behind codes."""
    # Padding has the code 0 here, whatever value that is: it is cut off again.
    groups = to_groups(codes, share)
    return from_groups(grid.values(groups), *codes.shape)
