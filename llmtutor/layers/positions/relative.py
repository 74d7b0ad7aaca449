"""Chapter 05, positions: what is learned is a distance, clipped or gathered into buckets."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.positions import base as scheme


class ShawPosition(scheme.Position):
    """Add ``q_i · a_{j−i} / √head_dim`` to the scores: a learned key vector for each distance.

    Shaw et al. (2018), eq. 4: the key of j seen from i is ``k_j + a_{clip(j − i, −K, K)}`` with
    K = ``max_distance``. ``weight`` (2K + 1, head_dim) holds the vectors, row 0 for −K and beyond,
    row K for the token itself; the heads share it, and it starts with the variance of ``Linear``.
    The paper also adds vectors to the values (eq. 3) and translates as well without (section 4.3):
    we leave them out. Its scale 1/√head_dim is assumed for the scores that this is added to. All
    products with vectors are made once, then picked by distance: no tensor is (q, k, head_dim).

    Raises:
        ValueError: sizes below 1; ``q`` of another width; wrong positions.
    """

    no_decay: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, head_dim: int, max_distance: int) -> None:
        super().__init__(head_dim=head_dim, max_distance=max_distance)
        check_at_least(1, head_dim=head_dim, max_distance=max_distance)
        rows = 2 * max_distance + 1
        std = math.sqrt(2 / (rows + head_dim))
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(rows, head_dim), std=std))

    def score_bias(
        self, q: scheme.Queries, q_positions: scheme.QueryPlaces, k_positions: scheme.KeyPlaces
    ) -> scheme.Bias:
        """Product of each query with the vector of its distance to each key."""
        rows, head_dim = self.weight.shape
        scheme.check_last(q, "head_dim", head_dim)
        reach = rows // 2
        index = scheme.relative_positions(q, q_positions, k_positions).clamp(-reach, reach) + reach
        products = q @ self.weight.T / math.sqrt(head_dim)
        return products.gather(-1, index.expand(*q.shape[:-2], *index.shape))


@dataclass(frozen=True)
class ShawPositionConfig(scheme.AttentionPositionConfig):
    """``ShawPosition``, a table in each layer."""

    kind: ClassVar[str] = "shaw"
    max_distance: int = 16
    """Distances beyond it share a vector; 16 is that of Shaw et al. (2018), section 4.1."""

    def build(self, site: Site, n_heads: int, head_dim: int) -> ShawPosition:
        """The module."""
        return ShawPosition(head_dim, **self.values())

    def table(self, n_heads: int, head_dim: int) -> int:
        """A vector for each distance, back and forth."""
        return (2 * self.max_distance + 1) * head_dim

    def costs(self, n_heads: int, head_dim: int, load: Load) -> Costs:
        """Products of each query with each vector; kept with the queries and the weights."""
        rows = 2 * self.max_distance + 1
        kept = load.tokens_bytes * n_heads * (head_dim + rows)
        kept += scheme.score_bias_bytes(n_heads, load, learned=True)
        return Costs(flops=2 * n_heads * head_dim * rows, activation_bytes=kept)


class T5Bias(scheme.Position):
    """Add a learned number for each head and bucket of distance, ``weight[bucket(j − i), h]``.

    Raffel et al. (2020), section 2.1, one direction as in its decoder. ``weight`` is (n_buckets,
    n_heads) and starts as a normal of deviation 0.02. T5 does not divide its scores by √head_dim;
    here the bias is added to scores that are divided as usual.

    Raises:
        ValueError: sizes as for ``t5_buckets``; ``q`` with another number of heads; wrong
            positions.
    """

    no_decay: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, n_heads: int, n_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__(n_heads=n_heads, n_buckets=n_buckets, max_distance=max_distance)
        check_at_least(1, n_heads=n_heads)
        _check_buckets(n_buckets, max_distance)
        self.max_distance = max_distance
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(n_buckets, n_heads), std=0.02))

    def score_bias(
        self, q: scheme.Queries, q_positions: scheme.QueryPlaces, k_positions: scheme.KeyPlaces
    ) -> scheme.Bias:
        """The number of each bucket, (heads, q, k) in the dtype of ``q``, for every query alike."""
        n_buckets, n_heads = self.weight.shape
        scheme.check_heads(q, n_heads)
        relative = scheme.relative_positions(q, q_positions, k_positions)
        buckets = t5_buckets(relative, n_buckets, self.max_distance)
        return self.weight[buckets].movedim(-1, 0).to(q.dtype)


def t5_buckets(
    relative: Int[Tensor, "*shape"], n_buckets: int = 32, max_distance: int = 128
) -> Int[Tensor, "*shape"]:
    """The bucket of each ``relative`` position (key minus query), from 0 to n_buckets − 1.

    Half of the buckets hold one distance each: 0, 1, 2, …; the other half grow with the logarithm
    of the distance, and the last takes ``max_distance`` and beyond. Keys to come, which a mask
    hides, share bucket 0 with the token itself.

    >>> t5_buckets(torch.tensor([3, 0, -1, -15, -16, -20, -500]))
    tensor([ 0,  0,  1, 15, 16, 17, 31])

    Raises:
        ValueError: fewer than 2 buckets, or a ``max_distance`` that does not lie beyond the
            distances with a bucket of their own.
    """
    _check_buckets(n_buckets, max_distance)
    distance = (-relative).clamp(min=0)
    exact = n_buckets // 2
    octaves = (distance.clamp(min=exact).double() / exact).log() / math.log(max_distance / exact)
    # Rounding must not push a distance that lies on an edge into the bucket before it.
    far = exact + (octaves * (n_buckets - exact) + 1e-9).floor().to(relative.dtype)
    return torch.where(distance < exact, distance, far.clamp(max=n_buckets - 1))


def _check_buckets(n_buckets: int, max_distance: int) -> None:
    check_at_least(2, n_buckets=n_buckets)
    if max_distance <= n_buckets // 2:
        raise ValueError(
            f"max_distance must be above {n_buckets // 2}, the distances that have a bucket of "
            f"their own when n_buckets = {n_buckets}; got {max_distance}"
        )


@dataclass(frozen=True)
class T5BiasConfig(scheme.AttentionPositionConfig):
    """``T5Bias``, one table for all layers."""

    kind: ClassVar[str] = "t5"
    shared: ClassVar[bool] = True
    n_buckets: int = 32
    """Numbers of each head; 32 and 128 are those of Raffel et al. (2020), section 2.1."""
    max_distance: int = 128
    """Distances beyond it share a bucket."""

    def build(self, site: Site, n_heads: int, head_dim: int) -> T5Bias:
        """The module that the first layer made."""
        key = (self, n_heads)
        if key not in site.shared:
            site.shared[key] = T5Bias(n_heads, **self.values())
        return site.shared[key]

    def table(self, n_heads: int, head_dim: int) -> int:
        """A number for each bucket and head."""
        return self.n_buckets * n_heads

    def costs(self, n_heads: int, head_dim: int, load: Load) -> Costs:
        """The weights, which torch stores beside a bias, and the buckets."""
        return Costs(activation_bytes=scheme.score_bias_bytes(n_heads, load, learned=True))
