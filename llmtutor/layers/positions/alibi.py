"""Chapter 05, positions: a straight line for each head, subtracted from the scores."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from llmtutor.checks import check_at_least
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.positions import base as scheme


class Alibi(scheme.Position):
    """Add ``−m_h · |i − j|`` to the score of query i and key j in head h.

    Press et al. (2022). Nothing is learned: the slopes ``m_h`` are fixed, steep heads read near
    and flat heads far. The paper is causal and has only j ≤ i; for keys that come later (without
    a mask) we take the distance too. The products are made in float32 at least, then rounded to
    the dtype of ``q``.

    Raises:
        ValueError: ``n_heads`` below 1; ``q`` with another number of heads; wrong positions.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__(n_heads=n_heads)
        self.slopes = alibi_slopes(n_heads)

    def score_bias(
        self, q: scheme.Queries, q_positions: scheme.QueryPlaces, k_positions: scheme.KeyPlaces
    ) -> scheme.Bias:
        """Minus slope times distance, (heads, q, k), the same for every query vector."""
        scheme.check_heads(q, len(self.slopes))
        dtype = torch.promote_types(q.dtype, torch.float32)
        slopes = torch.tensor(self.slopes, dtype=dtype, device=q.device)
        distances = scheme.relative_positions(q, q_positions, k_positions).abs().to(dtype)
        return (-slopes[:, None, None] * distances).to(q.dtype)


def alibi_slopes(n_heads: int) -> list[float]:
    """Slopes of the heads: for n a power of two the geometric sequence from ``2^(−8/n)`` to 2⁻⁸.

    For another number, the slopes of the next lower power of two, then every other one of the
    sequence for twice that power (the authors' published code; the paper has powers of two only).

    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]

    Raises:
        ValueError: ``n_heads`` below 1.
    """
    check_at_least(1, n_heads=n_heads)
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-4 * h / power) for h in range(1, 2 * power, 2)]
    return slopes + between[: n_heads - power]


@dataclass(frozen=True)
class AlibiConfig(scheme.AttentionPositionConfig):
    """``Alibi``."""

    kind: ClassVar[str] = "alibi"

    def build(self, site: Site, n_heads: int, head_dim: int) -> Alibi:
        """The module."""
        return Alibi(n_heads)

    def costs(self, n_heads: int, head_dim: int, load: Load) -> Costs:
        """The weights, which torch stores beside a bias."""
        return Costs(activation_bytes=scheme.score_bias_bytes(n_heads, load, learned=False))
