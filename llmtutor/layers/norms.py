"""Chapter 07, norms: keep the size of each vector in check, one position at a time.

Both norms look at the *last* dimension only, the d_model numbers of one position. A statistic
taken over the sequence as well would carry the future into the past: each position would be
divided by a number that depends on tokens it must not see.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_number
from llmtutor.layers.basic import Layer, check_width
from llmtutor.layers.part import Costs, Part


def layer_norm(
    x: Float[Tensor, "*batch d_model"],
    weight: Float[Tensor, " d_model"],
    bias: Float[Tensor, " d_model"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*batch d_model"]:
    """``(x − mean) / √(var + eps) · weight + bias``, mean and variance of each vector by itself.

    The variance divides by d_model, not by d_model − 1 (Ba et al. 2016).

    >>> layer_norm(torch.tensor([1.0, 3.0]), torch.ones(2), eps=0.0)  # mean 2, deviation 1
    tensor([-1.,  1.])
    """
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    y = centred * torch.rsqrt(variance + eps) * weight
    return y if bias is None else y + bias


def rms_norm(
    x: Float[Tensor, "*batch d_model"], weight: Float[Tensor, " d_model"], eps: float = 1e-5
) -> Float[Tensor, "*batch d_model"]:
    """``x / √(mean(x²) + eps) · weight``: the length is normalised, the mean stays.

    Zhang and Sennrich 2019: re-centring is not what makes LayerNorm work. Half-precision input
    is squared in float32, where large activations do not overflow; the result has x's dtype.

    >>> rms_norm(torch.tensor([3.0, 3.0, 3.0, -3.0]), torch.ones(4), eps=0.0)
    tensor([ 1.,  1.,  1., -1.])
    """
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    mean_square = torch.linalg.vecdot(wide, wide).unsqueeze(-1) / x.shape[-1]  # in one pass
    return (wide * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)


class LayerNorm(Layer):
    """``layer_norm`` with a learned gain (starts at 1) and, if asked, bias (starts at 0).

    (..., d_model) → (..., d_model), through torch's fused kernel.

    Raises:
        ValueError: d_model below 1, eps not above 0, an input whose last dimension is another.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(d_model=d_model, eps=eps, bias=bias)
        check_at_least(1, d_model=d_model)
        self.eps = check_number("eps", eps, above=0)
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Normalise each vector of the last dimension."""
        check_width(x, "d_model", len(self.weight))
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(Layer):
    """``rms_norm`` with a learned gain (starts at 1): (..., d_model) → (..., d_model).

    With ``offset`` the gain is ``1 + weight`` and ``weight`` starts at 0, as in Gemma. It refuses
    what ``LayerNorm`` does.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, offset: bool = False) -> None:
        super().__init__(d_model=d_model, eps=eps, offset=offset)
        check_at_least(1, d_model=d_model)
        self.eps, self.offset = check_number("eps", eps, above=0), offset
        self.weight = nn.Parameter(torch.zeros(d_model) if offset else torch.ones(d_model))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Normalise each vector of the last dimension."""
        check_width(x, "d_model", len(self.weight))
        gain: Tensor = self.weight
        if self.offset:  # in float32 at least: bfloat16 has no number between 1 and 1.0078
            gain = 1 + gain.to(torch.promote_types(gain.dtype, torch.float32))
        return rms_norm(x, gain, self.eps)


@dataclass(frozen=True)
class NormConfig(Part, ABC):
    """The configuration of a norm over vectors of any width."""

    layer: ClassVar[type[nn.Module]]
    """What it builds."""
    eps: float = 1e-5
    """Added to the variance or mean square: it keeps the zero vector finite."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("eps", self.eps, above=0)

    def build(self, width: int) -> nn.Module:
        """The layer for vectors of ``width`` numbers."""
        return self.layer(width, **self.values())

    @abstractmethod
    def costs(self, width: int, vectors_bytes: int) -> Costs:
        """With ``vectors_bytes`` the bytes of one number for each vector."""


@dataclass(frozen=True)
class LayerNormConfig(NormConfig):
    """``LayerNorm``."""

    kind: ClassVar[str] = "layernorm"
    layer = LayerNorm
    bias: bool = True
    """Whether a bias is learned besides the gain."""

    def costs(self, width: int, vectors_bytes: int) -> Costs:
        """Kept of a vector: what comes in and out; its mean and 1 / deviation."""
        n = width * (1 + self.bias)
        return Costs(n, n, activation_bytes=(2 * width + 2) * vectors_bytes)


@dataclass(frozen=True)
class RMSNormConfig(NormConfig):
    """``RMSNorm``."""

    kind: ClassVar[str] = "rmsnorm"
    layer = RMSNorm
    offset: bool = False
    """The gain is 1 + weight (Gemma)."""

    def costs(self, width: int, vectors_bytes: int) -> Costs:
        """Kept of a vector: what comes in, that divided by its size, what goes out; 1 / size."""
        return Costs(width, width, activation_bytes=(3 * width + 1) * vectors_bytes)
