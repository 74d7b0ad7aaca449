"""Chapter 23, export: whole numbers of a few bits, and a scale that several of them share.

``w ≈ scale · (code − zero)``. A *symmetric* grid has its 0 in the middle; an *asymmetric* one
reaches from the smallest entry to the largest, and each group says which code means 0.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from llmtutor.interop.quantize.groups import Share, check_share
from llmtutor.interop.quantize.packing import check_bits


@dataclass(frozen=True)
class IntegerGrid:
    """``scale · (code − zero)`` for the codes 0 … 2^bits − 1; one scale and zero a group."""

    bits: int
    scale: Float[Tensor, "*groups 1"]
    zero: UInt8[Tensor, "*groups 1"]
    symmetric: bool

    def codes(self, x: Float[Tensor, "*groups size"]) -> UInt8[Tensor, "*groups size"]:
        """The nearest, ties to even; what lies outside of the grid gets its end."""
        steps = (x / self.scale.float()).round() + self.zero
        return steps.clamp(0, 2**self.bits - 1).to(torch.uint8)

    def values(self, codes: UInt8[Tensor, "*groups size"]) -> Float[Tensor, "*groups size"]:
        """What the codes mean, in float32."""
        return (codes.float() - self.zero) * self.scale.float()

    def stored(self) -> dict[str, Tensor]:
        """The scales; zeros only where they differ."""
        return {"scale": self.scale} if self.symmetric else {"scale": self.scale, "zero": self.zero}

    def rows(self, chosen: Tensor) -> "IntegerGrid":
        """Of some rows; one grid for the whole matrix is the same for all."""
        if len(self.scale) == 1:
            return self
        return IntegerGrid(self.bits, self.scale[chosen], self.zero[chosen], self.symmetric)


@dataclass(frozen=True)
class Integers:
    """Whole numbers of ``bits`` bits: int8, int4 and so on.

    >>> grid = Integers(bits=4).fit(torch.tensor([[0.5, -1.4, 0.1]]))
    >>> codes = grid.codes(torch.tensor([[0.5, -1.4, 0.1]]))
    >>> codes.tolist(), [round(x, 6) for x in grid.values(codes)[0].tolist()]
    ([[10, 1, 8]], [0.4, -1.4, 0.0])

    Scales of groups are kept in float16, of which there are many; those of rows and of a whole
    matrix in float32. 0 is on every grid. A symmetric one of 4 bits reaches from −8 to 7 steps,
    and a step is a seventh of the largest entry, so that −8 is left unused by rounding.

    Raises:
        ValueError: bits outside 2 … 8, a share that is none.
    """

    kind: ClassVar[str] = "integers"
    bits: int = 8
    symmetric: bool = True
    share: Share = "row"

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.bits < 2:
            raise ValueError("bits must be at least 2: one bit has no place for 0 and two signs")
        check_share(self.share)

    def fit(self, groups: Float[Tensor, "*groups size"]) -> IntegerGrid:
        """The finest grid that reaches all entries of a group; a group of zeros has the scale 1.

        Raises:
            ValueError: a scale that float16 cannot hold.
        """
        if self.symmetric:
            reach = groups.abs().amax(-1, keepdim=True) / (2 ** (self.bits - 1) - 1)
            scale = self._scales(reach)
            return IntegerGrid(self.bits, scale, self._middle(scale), True)
        low = groups.amin(-1, keepdim=True).clamp(max=0)
        high = groups.amax(-1, keepdim=True).clamp(min=0)
        scale = self._scales((high - low) / (2**self.bits - 1))
        zero = (-low / scale.float()).round().clamp(0, 2**self.bits - 1).to(torch.uint8)
        return IntegerGrid(self.bits, scale, zero, False)

    def restored(self, stored: dict[str, Tensor], rows: int) -> IntegerGrid:
        """The grid of what ``stored`` gave; the scales know their rows."""
        scale = stored["scale"]
        zero = self._middle(scale) if self.symmetric else stored["zero"]
        return IntegerGrid(self.bits, scale, zero, self.symmetric)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        own = {"bits": self.bits, "symmetric": self.symmetric, "share": self.share}
        return {"kind": self.kind, **own}

    def _scales(self, exact: Tensor) -> Tensor:
        """Rounded to how they are kept, before any code is chosen by them."""
        kept = exact.to(torch.float32 if isinstance(self.share, str) else torch.float16)
        if not bool(torch.isfinite(kept).all()):
            raise ValueError(
                f"a step of {float(exact.max()):.3g} is too large for a scale in float16: "
                "share it by row or tensor, whose scales are float32"
            )
        return torch.where(kept > 0, kept, 1.0)

    def _middle(self, scale: Tensor) -> Tensor:
        return torch.full_like(scale, 2 ** (self.bits - 1), dtype=torch.uint8)
