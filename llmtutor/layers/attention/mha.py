"""Chapter 04, attention: several heads side by side, each with its own queries, keys and values."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.layers.attention.core import attention_weights, fused_attention
from llmtutor.layers.attention.masks import sliding_window_mask
from llmtutor.layers.basic import Linear
from llmtutor.layers.norms import RMSNorm
from llmtutor.layers.positions.base import NoPosition, Position


class MultiHeadAttention(nn.Module):
    """Self-attention with ``n_heads`` heads of width ``head_dim = d_model / n_heads``.

    ``q, k, v = x W_Qᵀ, x W_Kᵀ, x W_Vᵀ`` are cut into heads, each head attends by itself, and
    ``W_O`` mixes the heads' outputs laid side by side (Vaswani et al. 2017, section 3.2.2).
    (batch, seq, d_model) → (batch, seq, d_model).

    - ``position`` rotates queries and keys and adds its bias to the scores (its ``embed`` is
      called by the model, below the first block). None: no position at all.
    - ``causal``: nobody sees the future. ``window``: nor further back than this many positions,
      the current one included; only together with ``causal``.
    - ``bias``: of the four projections; the paper and current models go without, GPT-2 has them.
    - ``qk_norm``: RMSNorm with a learned gain over each head's query and key, before the
      rotation, which bounds the scores (Henry et al. 2020; per-head RMSNorm as in Qwen3).
      ``eps`` is that of these two norms.

    Other than the paper: no dropout on the weights; projections start as in ``Linear``.

    Raises:
        ValueError: sizes below 1, heads that do not divide ``d_model``, a window that is below 1
            or not causal; an input that is not (batch, seq, d_model).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        position: Position | None = None,
        causal: bool = True,
        window: int | None = None,
        bias: bool = False,
        qk_norm: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if d_model < 1 or n_heads < 1 or d_model % n_heads:
            raise ValueError(
                "n_heads must divide d_model, both at least 1: "
                f"got d_model = {d_model}, n_heads = {n_heads}"
            )
        if window is not None and (window < 1 or not causal):
            raise ValueError(
                "window must be at least 1 (it includes the current token) and needs causal=True, "
                f"got window = {window}, causal = {causal}"
            )
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.causal, self.window = causal, window
        self.query = Linear(d_model, d_model, bias)
        self.key = Linear(d_model, d_model, bias)
        self.value = Linear(d_model, d_model, bias)
        self.output = Linear(d_model, d_model, bias)
        self.query_norm = RMSNorm(self.head_dim, eps) if qk_norm else None
        self.key_norm = RMSNorm(self.head_dim, eps) if qk_norm else None
        self.position = NoPosition() if position is None else position

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """Attend within each sequence: (batch, seq, d_model) → (batch, seq, d_model)."""
        q, k = self._queries_keys(x)
        v = self._split(self.value(x))
        mask, bias = self._rules(q)
        heads = fused_attention(q, k, v, mask=mask, causal=self.causal, bias=bias)
        return self.output(heads.transpose(1, 2).flatten(2))

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """Who looks at whom: the weights behind ``forward``, through the readable path."""
        q, k = self._queries_keys(x)
        mask, bias = self._rules(q)
        return attention_weights(q, k, mask=mask, causal=self.causal, bias=bias)

    def _queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim != 3:
            raise ValueError(f"x must be (batch, seq, d_model), got shape {tuple(x.shape)}")
        q, k = self._split(self.query(x)), self._split(self.key(x))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        positions = torch.arange(x.shape[1], device=x.device)
        return self.position.rotate(q, positions), self.position.rotate(k, positions)

    def _rules(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the plain causal mask does not say: a mask for the window, the position's bias."""
        positions = torch.arange(q.shape[2], device=q.device)
        bias = self.position.score_bias(q, positions, positions)
        if self.window is None:
            return None, bias
        return sliding_window_mask(len(positions), self.window, device=q.device), bias

    def _split(self, x: Tensor) -> Tensor:
        """(batch, seq, d_model) → (batch, heads, seq, head_dim)."""
        return x.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)

    def extra_repr(self) -> str:
        """What the projections below do not show, for ``print(model)``."""
        return f"n_heads={self.n_heads}, causal={self.causal}, window={self.window}"
