"""Chapter 17, differential: attention as the difference of two maps, so that what both see cancels.

A softmax gives some weight to every token, also to those that do not matter. Where two maps give
the same weight to them, subtracting one from the other takes it away, as a differential amplifier
takes away what its two inputs have in common.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_integer, check_number
from llmtutor.layers.attention.core import attention_weights
from llmtutor.layers.attention.heads import Attention, AttentionConfig
from llmtutor.layers.norms import rms_norm
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.positions import base as scheme

LAMBDA_STD = 0.1
"""Deviation of the four vectors behind λ at the start."""


def differential_attention(
    q: tuple[Float[Tensor, "*batch q head_dim"], Float[Tensor, "*batch q head_dim"]],
    k: tuple[Float[Tensor, "*batch k head_dim"], Float[Tensor, "*batch k head_dim"]],
    v: Float[Tensor, "*batch k v_dim"],
    lam: float | Tensor,
    **rules: Any,
) -> Float[Tensor, "*batch q v_dim"]:
    """``(softmax(q₁k₁ᵀ/√d) − λ softmax(q₂k₂ᵀ/√d)) v``: Ye et al. 2024, eq. 1.

    ``rules`` are those of ``attention_weights``, such as ``causal=True``, for both maps. A row of
    weights sums to 1 − λ, and single weights may be negative.

    >>> x = torch.eye(2)
    >>> differential_attention((x, x), (x, x), x, 1.0)  # two equal maps
    tensor([[0., 0.],
            [0., 0.]])

    Raises:
        ValueError: as ``attention_weights``.
    """
    first, second = (attention_weights(a, b, **rules) for a, b in zip(q, k, strict=True))
    return (first - lam * second) @ v


def lambda_init(layer: int) -> float:
    """``0.8 − 0.6 exp(−0.3 layer)``, where λ starts in a layer counted from 0: 0.2, 0.36, … 0.8.

    The paper counts layers from 1 and writes l − 1 (eq. 3 and the text below it).

    >>> round(lambda_init(0), 3), round(lambda_init(27), 3)
    (0.2, 0.8)

    Raises:
        ValueError: a layer below 0.
    """
    return 0.8 - 0.6 * math.exp(-0.3 * check_integer("layer", layer, least=0))


@dataclass(frozen=True)
class DifferentialConfig(AttentionConfig):
    """``DifferentialAttention``, whose heads are counted as in plain attention of the same size.

    Two of them make one differential head: two softmax maps to subtract, and two heads of values
    laid side by side. So there are half as many, twice as wide.

    Raises:
        ValueError: as ``AttentionConfig``; heads of which an odd number is left over.
    """

    kind: ClassVar[str] = "differential"
    gain: bool = True
    """Whether the norm of each head learns a gain, the same one for all heads."""
    eps: float = 1e-5
    """Added to the mean square in that norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("eps", self.eps, above=0)
        for name, heads in (("n_heads", self.n_heads), ("n_kv_heads", self.kv_heads)):
            if heads % 2:
                raise ValueError(
                    f"differential attention makes one head of two: {name} must be even, "
                    f"got {heads}"
                )

    def build(self, site: Site) -> "DifferentialAttention":
        """The layer; its λ starts where its depth says."""
        return DifferentialAttention(site.d_model, **self.options(site), layer=site.layer)

    def costs(self, site: Site, load: Load) -> Costs:
        """Attention's; the scores once more, for the other half of the values; λ and the norm."""
        width = self.width(site.d_model)
        seen = min(load.seq, self.window or load.seq)
        q, kv = self.n_heads * width, self.kv_heads * width
        n = 4 * width + self.gain * 2 * width
        # Outputs of the second call, both side by side, their difference, normalised, scaled; and
        # values twice; one float32 a head of the kernel; the size of each head.
        kept = ((5 + self.gain) * q + kv + self.n_heads // 2) * load.tokens_bytes
        kept += 4 * self.n_heads * load.batch * load.seq
        again = self._score_costs(load) + self.position.costs(self.n_heads, width, load)
        own = Costs(n, n, 4 * seen * q, 0, kept)
        return super().costs(site, load) + own + again


class DifferentialAttention(Attention):
    """Causal self-attention whose heads look with the difference of two maps.

    ``head = (1 − λ_init) · norm((A₁ − λ A₂) V)`` with ``A = softmax(q kᵀ/√d)`` and
    ``λ = exp(λ_q1 · λ_k1) − exp(λ_q2 · λ_k2) + λ_init`` (Ye et al. 2024, eqs. 1 to 3). The norm is
    RMSNorm over the 2 · head_dim components of each head; ``λ_init`` depends on ``layer``, counted
    from 0. Map i of the first half of the ``n_heads`` maps stands against map i of the second half;
    heads of values pair up alike. (batch, seq, d_model) → (batch, seq, d_model).

    >>> layer = DifferentialAttention(8, n_heads=4, n_kv_heads=2)
    >>> layer(torch.zeros(1, 3, 8)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([1, 3, 8]), 204)

    Raises:
        ValueError: what ``DifferentialConfig`` and ``Attention`` refuse; a layer below 0.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        layer: int = 0,
        gain: bool = True,
        eps: float = 1e-5,
        position: scheme.Position | None = None,
        causal: bool = True,
        **options: Any,
    ) -> None:
        DifferentialConfig(n_heads, gain=gain, eps=eps, **options)
        super().__init__(d_model, n_heads, position=position, causal=causal, **options)
        self.lambda_init, self.eps = lambda_init(layer), eps
        self.settings["lambda_init"] = round(self.lambda_init, 3)
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(LAMBDA_STD * torch.randn(self.head_dim)) for _ in range(4)
        )
        self.head_norm = nn.Parameter(torch.ones(2 * self.head_dim)) if gain else None

    def lam(self) -> Float[Tensor, ""]:
        """λ as it is now: one number for all heads and tokens, in float32 at least."""
        q1, k1, q2, k2 = (
            x.to(torch.promote_types(x.dtype, torch.float32))
            for x in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2)
        )
        return (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + self.lambda_init

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """The difference of the maps, ``A₁ − λ A₂``, for each of the n_heads / 2 heads."""
        return self._difference(super().weights(x))

    def _difference(self, maps: Tensor) -> Tensor:
        """What is one for each map, (batch, n_heads, …) → (batch, n_heads / 2, …)."""
        first, second = maps.chunk(2, dim=1)
        return first - self.lam().to(maps.dtype) * second

    def _look(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rules: dict[str, Any]) -> Tensor:
        # Fused kernels want values as wide as keys, so both maps look at each half of the values.
        halves = [torch.cat((half, half), dim=1) for half in v.chunk(2, dim=1)]
        maps = torch.cat([self.attend(q, k, half, **rules) for half in halves], dim=-1)
        return self._normed(self._difference(maps))

    def _normed(self, heads: Tensor) -> Tensor:
        """Every head of every token as long as (1 − λ_init) √(2 · head_dim), gains aside."""
        gain = heads.new_ones(heads.shape[-1]) if self.head_norm is None else self.head_norm
        return (1 - self.lambda_init) * rms_norm(heads, gain, self.eps)
