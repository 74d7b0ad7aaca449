"""Chapter 05, positions: angles that turn at many speeds, fixed instead of learned."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from llmtutor.layers.part import Site
from llmtutor.layers.positions import base as scheme
from llmtutor.layers.positions.angles import cos_and_sin, geometric_frequencies


class SinusoidalPosition(scheme.Position):
    """Add ``sin(p ω_i)`` to component 2i and ``cos(p ω_i)`` to 2i + 1, ``ω_i = base^(−2i/d)``.

    Vaswani et al. (2017), section 3.5. Each pair is a point on a circle, so the vector of p + k is
    that of p times a rotation which depends on k alone: an offset is a linear map. No parameter,
    no longest sequence. The paper also multiplies the token embeddings by √d_model, which is not
    done here. Sums are made in the dtype of ``x``; the angles always come from float64.

    Raises:
        ValueError: odd ``d_model``, ``base`` not above 1, ``x`` of another width.
    """

    def __init__(self, d_model: int, base: float = 10_000.0) -> None:
        super().__init__(d_model=d_model, base=base)
        self.d_model = d_model
        self.frequencies = geometric_frequencies(d_model, base)

    def vectors(
        self, positions: scheme.Places, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "seq d_model"]:
        """The vectors themselves.

        >>> SinusoidalPosition(2).vectors(torch.tensor([0, 1]))
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
        """
        cos, sin = cos_and_sin(positions, self.frequencies, dtype)
        return torch.stack((sin, cos), dim=-1).flatten(-2)

    def embed(self, x: scheme.Embedded, positions: scheme.Places) -> scheme.Embedded:
        """Add the vector of each position: (…, seq, d_model) → the same shape."""
        scheme.check_last(x, "d_model", self.d_model)
        scheme.check_positions(positions, x.shape[-2])
        return x + self.vectors(positions, x.dtype)


@dataclass(frozen=True)
class SinusoidalPositionConfig(scheme.EmbeddingPositionConfig):
    """``SinusoidalPosition``."""

    kind: ClassVar[str] = "sinusoidal"
    base: float = 10_000.0
    """The slowest pair turns by about 1 / base radians a token."""

    def build(self, site: Site) -> SinusoidalPosition:
        """The module."""
        return SinusoidalPosition(site.d_model, self.base)
