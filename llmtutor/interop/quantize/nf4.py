"""Chapter 23, export: four bits whose 16 values lie where a normal distribution has its weight.

Trained weights look normal: most are small, few are large. Steps of one width spend codes on values
that hardly occur. NF4 (Dettmers et al. 2023, section 3) puts its values at quantiles of the normal
distribution, so that each is used about as often, and scales them to the largest entry of a group.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy import stats
from torch import Tensor

from llmtutor.interop.quantize.format import decoded, nearest
from llmtutor.interop.quantize.groups import check_share
from llmtutor.interop.quantize.integers import Integers

OUTERMOST = 1 - (1 / 32 + 1 / 30) / 2
"""The largest quantile: the middle of the last of 16 and of 15 equal parts of one half."""
TINY = torch.finfo(torch.float32).tiny
SCALES = Integers(bits=8, share=256)
"""For scales of scales."""


def normal_levels() -> Float[Tensor, "levels"]:
    """The 16 values, smallest first: 8 above 0, 0 itself and 7 below, from −1 to 1.

    Two halves, because 16 quantiles side by side would leave 0 out, and a model has many weights
    that must stay 0 exactly (padding, masks).
    """
    above = stats.norm.ppf(np.linspace(OUTERMOST, 0.5, 9)[:-1])
    below = -stats.norm.ppf(np.linspace(OUTERMOST, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, [0.0], below]))
    return torch.tensor(levels / levels.max(), dtype=torch.float32)


LEVELS = normal_levels()
BETWEEN = (LEVELS[1:] + LEVELS[:-1]) / 2
"""Where one value stops to be the nearest."""


@dataclass(frozen=True)
class LevelGrid:
    """``scale · LEVELS[code]``, one scale a group; ``kept`` is how the scales are stored."""

    scale: Float[Tensor, "*groups 1"]
    kept: dict[str, Tensor]

    def codes(self, x: Float[Tensor, "*groups size"]) -> UInt8[Tensor, "*groups size"]:
        """The nearest level."""
        return torch.bucketize(x / self.scale.clamp(min=TINY), BETWEEN).to(torch.uint8)

    def values(self, codes: UInt8[Tensor, "*groups size"]) -> Float[Tensor, "*groups size"]:
        """What the codes mean, in float32."""
        return LEVELS[codes.long()] * self.scale

    def stored(self) -> dict[str, Tensor]:
        """The scales, or what stands for them."""
        return self.kept

    def rows(self, chosen: Tensor) -> "LevelGrid":
        """Of some rows."""
        return LevelGrid(self.scale[chosen], {})


@dataclass(frozen=True)
class NF4:
    """16 values at normal quantiles; one scale for each ``group`` entries of a row.

    >>> grid = NF4().fit(torch.tensor([[0.5, -2.0, 0.0]]))
    >>> grid.codes(torch.tensor([[0.5, -2.0, 0.0]])).tolist()  # 0.25 of the largest, −1, 0
    [[10, 0, 7]]

    ``double`` stores the scales in 8 bits too, and a scale for each 256 of them: 4.13 bits a weight
    instead of 4.5. The paper takes 8-bit floats for that, and float32 for the scales of the
    scales; we take int8 and float16.

    Raises:
        ValueError: a group below 1.
    """

    kind: ClassVar[str] = "nf4"
    bits: ClassVar[int] = 4
    group: int = 64
    double: bool = False

    def __post_init__(self) -> None:
        check_share(self.group)

    @property
    def share(self) -> int:
        """The group."""
        return self.group

    def fit(self, groups: Float[Tensor, "*groups size"]) -> LevelGrid:
        """The largest entry of each group; ``ValueError`` as ``nearest`` for the scales."""
        largest = groups.abs().amax(-1, keepdim=True).float()
        if not self.double:
            return LevelGrid(largest, {"scale": largest})
        # Around their mean: all are positive, and a symmetric grid would waste its sign.
        mean = largest.mean()
        flat = nearest((largest - mean).view(1, -1), SCALES)
        kept = {"scale_codes": flat.codes, "scale_mean": mean, **flat.grid.stored()}
        return self.restored(kept, len(largest))

    def restored(self, stored: dict[str, Tensor], rows: int) -> LevelGrid:
        """The grid of what ``stored`` gave, of so many rows of groups."""
        if not self.double:
            return LevelGrid(stored["scale"], stored)
        codes = stored["scale_codes"]
        grid = SCALES.restored({"scale": stored["scale"]}, 1)
        largest = decoded(codes, grid, SCALES.share) + stored["scale_mean"]
        return LevelGrid(largest.clamp(min=0).view(rows, -1, 1), stored)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        return {"kind": self.kind, "group": self.group, "double": self.double}
