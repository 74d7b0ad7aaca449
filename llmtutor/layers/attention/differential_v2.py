"""Chapter 17, differential: the second version, with twice the queries and λ from each token.

One head of values, one of keys, two of queries: both maps of a head look at the same keys, so that
a common kernel computes them and the cache is that of plain attention.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from llmtutor.layers.attention.heads import Attention, AttentionConfig
from llmtutor.layers.basic import RESIDUAL, Linear, tag
from llmtutor.layers.part import Costs, Load, Site, field_names
from llmtutor.layers.positions import base as scheme


@dataclass(frozen=True)
class DifferentialV2Config(AttentionConfig):
    """``DifferentialAttentionV2``; ``n_heads`` are those that go out, half of those of queries."""

    kind: ClassVar[str] = "differential-v2"

    def build(self, site: Site) -> "DifferentialAttentionV2":
        """The layer."""
        position = self.position.build(site, 2 * self.n_heads, self.width(site.d_model))
        return DifferentialAttentionV2(site.d_model, **self.values() | {"position": position})

    def doubled(self, d_model: int) -> AttentionConfig:
        """Plain attention with all heads of queries, which this is up to its difference."""
        values = {name: getattr(self, name) for name in field_names(AttentionConfig)}
        sizes = {"n_kv_heads": self.kv_heads, "head_dim": self.width(d_model)}
        plain = AttentionConfig(**values | sizes | {"gate": False})  # a gate is on what goes out
        return replace(plain, n_heads=2 * self.n_heads)

    def costs(self, site: Site, load: Load) -> Costs:
        """Attention's with twice the queries, half of its output projection less, λ more."""
        out = self.n_heads * self.width(site.d_model)
        gate = self.gate * out
        matrices = site.d_model * (self.n_heads - out + gate)
        n = matrices + self.bias * gate
        # The difference, λ, and what goes into the gate and out of it.
        kept = (out + self.n_heads + 2 * gate) * load.tokens_bytes
        return self.doubled(site.d_model).costs(site, load) + Costs(n, n, 2 * matrices, 0, kept)


class DifferentialAttentionV2(Attention):
    """Heads ``A₁V − σ(λ) A₂V``, where ``λ = x W_λᵀ`` is one number for each token and head.

    Query heads 2i and 2i + 1 make head i; they share their keys and values, whatever
    ``n_kv_heads`` is. There is no norm of heads and nothing that depends on depth (Ye et al. 2026).
    (batch, seq, d_model) → (batch, seq, d_model).

    >>> import torch
    >>> layer = DifferentialAttentionV2(8, n_heads=2)
    >>> layer(torch.zeros(1, 3, 8)).shape, layer.query.weight.shape, layer.output.weight.shape
    (torch.Size([1, 3, 8]), torch.Size([16, 8]), torch.Size([8, 8]))

    Raises:
        ValueError: as ``Attention``.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        position: scheme.Position | None = None,
        causal: bool = True,
        **options: Any,
    ) -> None:
        config = DifferentialV2Config(n_heads, **options)
        doubled = config.doubled(d_model).values() | {"position": position, "causal": causal}
        super().__init__(d_model, **doubled)
        width = n_heads * self.head_dim
        self.output = tag(Linear(width, d_model, config.biased_output), RESIDUAL)
        self.gate = Linear(d_model, width, config.bias) if config.gate else None
        self.lambda_projection = Linear(d_model, n_heads)

    def lam(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads seq 1"]:
        """What is subtracted of the second map, between 0 and 1; about 0.5 at the start."""
        return self.lambda_projection(x).sigmoid().transpose(1, 2).unsqueeze(-1)

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """The difference of the maps, ``A₁ − σ(λ) A₂``, for each of the n_heads heads."""
        return self._difference(super().weights(x), x)

    def _difference(self, maps: Tensor, x: Tensor) -> Tensor:
        """What is one for each map, (batch, 2 · n_heads, …) → (batch, n_heads, …)."""
        return maps[:, 0::2] - self.lam(x) * maps[:, 1::2]

    def _look(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rules: dict[str, Any]) -> Tensor:
        return self._difference(self.attend(q, k, v, **rules), x)
