"""Chapter 04, attention: several heads side by side, each with its own queries, keys and values."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.attention.cache import KVCache
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
    - ``n_kv_heads``: heads of keys and values, when fewer (chapter 14, ``GroupedQueryAttention``).

    Other than the paper: no dropout on the weights; projections start as in ``Linear``.

    Raises:
        ValueError: sizes below 1, heads that do not divide ``d_model``, a window that is below 1
            or not causal, ``n_kv_heads`` that do not divide ``n_heads``; an input that is not
            (batch, seq, d_model), a cache made for other shapes.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
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
        self.n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        check_groups(n_heads, self.n_kv_heads)
        self.causal, self.window = causal, window
        self.query = Linear(d_model, d_model, bias)
        self.key = Linear(d_model, self.n_kv_heads * self.head_dim, bias)
        self.value = Linear(d_model, self.n_kv_heads * self.head_dim, bias)
        self.output = Linear(d_model, d_model, bias)
        self.query_norm = RMSNorm(self.head_dim, eps) if qk_norm else None
        self.key_norm = RMSNorm(self.head_dim, eps) if qk_norm else None
        self.position = NoPosition() if position is None else position

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: KVCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """Attend within each sequence: (batch, seq, d_model) → (batch, seq, d_model).

        With a ``cache``, ``x`` holds the next tokens, any number of them, and their queries see
        the past in the cache too, which then holds the new ones as well.
        """
        q, k, positions = self._queries_keys(x, 0 if cache is None else cache.length)
        v = self._split(self.value(x))
        if cache is not None:
            k, v = cache.append(k, v)
        mask, bias = self._rules(q, positions, None if cache is None else cache.starts)
        heads = fused_attention(q, k, v, mask=mask, causal=self.causal, bias=bias)
        return self.output(heads.transpose(1, 2).flatten(2))

    def make_cache(
        self,
        batch: int,
        max_len: int,
        *,
        starts: Int[Tensor, " batch"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> KVCache:
        """An empty cache for this layer, with the device and dtype of its weights by default.

        Raises:
            ValueError: as ``KVCache``; a layer that looks ahead, whose past would change.
        """
        if not self.causal:
            raise ValueError("only causal attention can decode with a cache; this has causal=False")
        weight = self.key.weight
        return KVCache(
            batch,
            self.n_kv_heads,
            max_len,
            self.head_dim,
            starts=starts,
            device=device or weight.device,
            dtype=dtype or weight.dtype,
        )

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """Who looks at whom: the weights behind ``forward``, through the readable path."""
        q, k, positions = self._queries_keys(x, 0)
        mask, bias = self._rules(q, positions, None)
        return attention_weights(q, k, mask=mask, causal=self.causal, bias=bias)

    def _queries_keys(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Both, rotated, and all positions: the ``start`` that the cache holds, then those of x."""
        if x.ndim != 3:
            raise ValueError(f"x must be (batch, seq, d_model), got shape {tuple(x.shape)}")
        q, k = self._split(self.query(x)), self._split(self.key(x))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        positions = torch.arange(start + x.shape[1], device=x.device)
        new = positions[start:]
        return self.position.rotate(q, new), self.position.rotate(k, new), positions

    def _rules(
        self, q: Tensor, positions: Tensor, starts: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the plain causal mask does not say: masks for window and padding, and the bias.

        Positions are slots in the cache, padding included: every scheme that acts here looks at
        distances alone, and those are the same counted from the first real token.
        """
        seq_q, seq_k = q.shape[2], len(positions)
        bias = self.position.score_bias(q, positions[seq_k - seq_q :], positions)
        mask = None
        if self.window is not None:
            mask = sliding_window_mask(seq_q, self.window, seq_k, device=q.device)
        if starts is not None:
            real = positions >= starts[:, None, None, None]
            mask = real if mask is None else mask & real
        return mask, bias

    def _split(self, x: Tensor) -> Tensor:
        """(batch, seq, heads · head_dim) → (batch, heads, seq, head_dim)."""
        return x.reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def extra_repr(self) -> str:
        """What the projections below do not show, for ``print(model)``."""
        shared = "" if self.n_kv_heads == self.n_heads else f"n_kv_heads={self.n_kv_heads}, "
        return f"n_heads={self.n_heads}, {shared}causal={self.causal}, window={self.window}"


def check_groups(n_heads: int, n_kv_heads: int) -> None:
    """Raise ``ValueError`` unless ``n_kv_heads`` heads can share ``n_heads`` queries evenly."""
    if n_kv_heads < 1 or n_heads < 1 or n_heads % n_kv_heads:
        raise ValueError(
            "n_kv_heads must divide n_heads, both at least 1: "
            f"got n_heads = {n_heads}, n_kv_heads = {n_kv_heads}"
        )
