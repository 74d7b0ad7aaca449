"""Chapter 04, attention: several heads side by side, each with its own queries, keys and values.

With as many heads of keys and values as of queries it is multi-head attention, with fewer
grouped-query attention, with one multi-query attention (chapter 14).
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_number
from llmtutor.layers.attention.cache import KVCache, WindowCache
from llmtutor.layers.attention.core import attention_weights, fused_attention
from llmtutor.layers.attention.grouping import check_groups
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, tag
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.norms import NormConfig
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.positions import base as scheme


@dataclass(frozen=True)
class AttentionConfig(MixerConfig):
    """``Attention``: what published decoders set, each with a plain default."""

    kind: ClassVar[str] = "attention"
    n_heads: int
    """Heads of queries."""
    n_kv_heads: int | None = None
    """Heads of keys and values, a divisor of ``n_heads``; None for as many."""
    head_dim: int | None = None
    """Width of a head; None for d_model / n_heads."""
    position: scheme.AttentionPositionConfig = scheme.NoPositionConfig()  # noqa: RUF009 (it is frozen)
    """How attention knows where tokens stand."""
    window: int | None = None
    """Tokens that a query looks back at, its own included; None for all."""
    bias: bool = False
    """Of the projections to queries, keys, values and the gate."""
    output_bias: bool | None = None
    """Of the output projection; None for the same as ``bias``."""
    qk_norm: NormConfig | None = None
    """Norm of queries and keys before their rotation, which bounds the scores."""
    qk_norm_over: Literal["head", "heads"] = "head"
    """Each head by itself (Qwen 3, Gemma 3), or all heads as one vector (OLMo 2)."""
    scale: float | None = None
    """Factor of the scores; None for 1/√head_dim."""
    softcap: float | None = None
    """Bound of the scores, ``c tanh(score / c)``."""
    sinks: bool = False
    """One learned score for each head that stands for no token."""
    gate: bool = False
    """Each component of the heads' outputs times a sigmoid of its own, taken from the input."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, n_heads=self.n_heads, head_dim=self.head_dim, window=self.window)
        check_groups(self.n_heads, self.kv_heads)
        for name in ("scale", "softcap"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, above=0)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def biased_output(self) -> bool:
        """Whether the output projection has a bias."""
        return self.bias if self.output_bias is None else self.output_bias

    def width(self, d_model: int) -> int:
        """Components of a head.

        Raises:
            ValueError: ``n_heads`` that do not divide ``d_model``, where nothing else is said.
        """
        if self.head_dim is not None:
            return self.head_dim
        if d_model % self.n_heads:
            raise ValueError(
                f"n_heads must divide d_model unless head_dim is given, got d_model = {d_model} "
                f"and n_heads = {self.n_heads}: {d_model / self.n_heads:g} components a head"
            )
        return d_model // self.n_heads

    def options(self, site: Site) -> dict[str, Any]:
        """All settings as the layer takes them, with ``position`` a module."""
        position = self.position.build(site, self.n_heads, self.width(site.d_model))
        return self.values() | {"position": position}

    def build(self, site: Site) -> "Attention":
        """The layer."""
        return Attention(site.d_model, **self.options(site))

    def position_table(self, site: Site) -> tuple[Hashable, int]:
        """One for all layers where the scheme says so."""
        place = (self.position, self.n_heads) if self.position.shared else site.layer
        return place, self.position.table(self.n_heads, self.width(site.d_model))

    def costs(self, site: Site, load: Load) -> Costs:
        """Kept of a token: queries, keys, values, output, and one float32 a head of the kernel."""
        head_dim = self.width(site.d_model)
        seen = min(load.seq, self.window or load.seq)
        q, kv = self.n_heads * head_dim, self.kv_heads * head_dim
        gate = self.gate * q
        matrices = site.d_model * (2 * (q + kv) + gate)
        biases = self.bias * (q + 2 * kv + gate) + self.biased_output * site.d_model
        n = matrices + biases + self.sinks * self.n_heads
        kept = 2 * (q + kv + gate) * load.tokens_bytes + 4 * self.n_heads * load.batch * load.seq
        cache = 2 * kv * load.batch * seen * load.itemsize
        own = Costs(n, n, 2 * matrices + 4 * seen * q, cache, kept)
        inside = self._norm_costs(q, kv, load) + self._score_costs(load)
        return own + inside + self.position.costs(self.n_heads, head_dim, load)

    def _norm_costs(self, q: int, kv: int, load: Load) -> Costs:
        """Of the norms of queries and keys; what goes out of them is counted already."""
        if self.qk_norm is None:
            return Costs()
        total = Costs(activation_bytes=-(q + kv) * load.tokens_bytes)
        for width, heads in ((q, self.n_heads), (kv, self.kv_heads)):
            count = heads if self.qk_norm_over == "head" else 1
            total += self.qk_norm.costs(width // count, count * load.tokens_bytes)
        return total

    def _score_costs(self, load: Load) -> Costs:
        """Kept of each score where the fused kernel is of no use, or needs a mask."""
        square = load.seq**2
        scores = load.batch * self.n_heads * square * load.itemsize
        if self.softcap is None and not self.sinks:
            return Costs(activation_bytes=0 if self.window is None else square)
        kept = 2 + (self.softcap is not None)  # exponentials, weights, and what tanh gave
        return Costs(activation_bytes=kept * scores + square)


class Attention(Layer):
    """Self-attention: queries of ``n_heads`` heads look at keys and values of ``n_kv_heads``.

    ``q, k, v = x W_Qᵀ, x W_Kᵀ, x W_Vᵀ`` are cut into heads, each head attends by itself, and
    ``W_O`` mixes the heads' outputs laid side by side (Vaswani et al. 2017, section 3.2.2). Query
    head h looks at the keys and values of head ``h // (n_heads / n_kv_heads)``; a group is the
    query heads that share one (Ainslie et al. 2023; with one for all, Shazeer 2019).
    (batch, seq, d_model) → (batch, seq, d_model).

    ``position`` is a module that rotates queries and keys and adds its bias to the scores (its
    ``embed`` is called by the model, below the first block). ``causal=False`` lets everybody see
    the future. ``options`` are the other fields of ``AttentionConfig``, such as ``n_kv_heads``;
    with ``gate`` the heads' outputs go through ``σ(x W_Gᵀ)`` first (Qiu et al. 2025, section 2.2).
    Other than in the paper there is no dropout on the weights.

    >>> layer = Attention(8, n_heads=4, n_kv_heads=2)
    >>> layer(torch.zeros(1, 3, 8)).shape, layer.key.weight.shape
    (torch.Size([1, 3, 8]), torch.Size([4, 8]))

    Raises:
        ValueError: what ``AttentionConfig`` refuses; a window without ``causal``; an input that is
            not (batch, seq, d_model), a cache made for other shapes.
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
        config = AttentionConfig(n_heads, **options)
        super().__init__(
            n_heads=n_heads, n_kv_heads=config.kv_heads, causal=causal, window=config.window
        )
        check_at_least(1, d_model=d_model)
        if config.window is not None and not causal:
            raise ValueError("a window needs causal=True: it looks back from each token")
        self.causal, self.window = causal, config.window
        self.n_heads, self.n_kv_heads = n_heads, config.kv_heads
        self.head_dim = config.width(d_model)
        self.scale, self.softcap = config.scale, config.softcap
        q_width, kv_width = n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.query = Linear(d_model, q_width, config.bias)
        self.key = Linear(d_model, kv_width, config.bias)
        self.value = Linear(d_model, kv_width, config.bias)
        self.output = tag(Linear(q_width, d_model, config.biased_output), RESIDUAL)
        self.query_norm = self.key_norm = None
        self.norm_over = config.qk_norm_over
        if config.qk_norm is not None:
            each = self.norm_over == "head"
            self.query_norm = config.qk_norm.build(self.head_dim if each else q_width)
            self.key_norm = config.qk_norm.build(self.head_dim if each else kv_width)
        self.sinks = nn.Parameter(torch.zeros(n_heads)) if config.sinks else None
        self.gate = Linear(d_model, q_width, config.bias) if config.gate else None
        self.position = scheme.NoPosition() if position is None else position
        self.attend = fused_attention
        """``attention``, or a function that gives the same."""

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: KVCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """Attend within each sequence: (batch, seq, d_model) → (batch, seq, d_model).

        With a ``cache``, ``x`` holds the next tokens, any number of them, and their queries see
        the past in the cache too, which then holds the new ones as well.
        """
        q, k, v, positions = self._projected(x, cache)
        keys = positions
        if cache is not None:
            k, v = cache.append(k, v)
            keys = torch.arange(cache.length - k.shape[2], cache.length, device=x.device)
        rules = self._rules(q, positions, keys, None if cache is None else cache.starts)
        return self._joined(self._look(x, q, k, v, rules), x)

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """Who looks at whom: the weights behind ``forward``, through the readable path."""
        q, k, positions = self._queries_keys(x, 0)
        return attention_weights(q, k, **self._rules(q, positions, positions, None))

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> KVCache:
        """An empty cache for this layer, with the device and dtype of its weights.

        Raises:
            ValueError: as ``KVCache``; a layer that looks ahead, whose past would change.
        """
        if not self.causal:
            raise ValueError("only causal attention can decode with a cache; this has causal=False")
        sizes, weight = (batch, self.n_kv_heads, max_len, self.head_dim), self.key.weight
        where: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        if self.window is None or self.window >= max_len:
            return KVCache(*sizes, starts=starts, **where)
        return WindowCache(*sizes, window=self.window, starts=starts, **where)

    def _look(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rules: dict[str, Any]) -> Tensor:
        """What each head sees, (batch, heads, seq, …); a variant may look at ``x`` as well."""
        return self.attend(q, k, v, **rules)

    def _projected(self, x: Tensor, cache: KVCache | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values of the new tokens, and their positions behind the cache's."""
        q, k, positions = self._queries_keys(x, 0 if cache is None else cache.length)
        return q, k, self._split(self.value(x)), positions

    def _queries_keys(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Both, split into heads, normalised and rotated; and their positions from ``start``."""
        if x.ndim != 3:
            raise ValueError(f"x must be (batch, seq, d_model), got shape {tuple(x.shape)}")
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        q = self._split(self.query(x), self.query_norm)
        k = self._split(self.key(x), self.key_norm)
        return *self.position.rotate_both(q, k, positions), positions

    def _rules(
        self, q: Tensor, positions: Tensor, keys: Tensor, starts: Tensor | None
    ) -> dict[str, Any]:
        """What else ``attention`` is told: masks for window and padding, bias, scale, and so on.

        ``positions`` are those of the queries, ``keys`` of the keys: slots in the cache, padding
        included. Every scheme that acts here looks at distances alone, which are the same in both.
        """
        mask = None
        if self.window is not None:
            mask = positions[:, None] - keys < self.window
        if starts is not None:
            real = keys >= starts[:, None, None, None]
            mask = real if mask is None else mask & real
        return {
            "mask": mask,
            "causal": self.causal,
            "bias": self.position.score_bias(q, positions, keys),
            "scale": self.scale,
            "softcap": self.softcap,
            "sinks": self.sinks,
        }

    def _joined(self, heads: Tensor, x: Tensor) -> Tensor:
        """(batch, heads, seq, head_dim) side by side, gated by ``x``, through ``W_O``."""
        heads = heads.transpose(1, 2).flatten(2)
        if self.gate is not None:
            heads = heads * self.gate(x).sigmoid()
        return self.output(heads)

    def _split(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """(batch, seq, heads · head_dim) → (batch, heads, seq, head_dim), through the norm."""
        if norm is not None and self.norm_over == "heads":
            x = norm(x)
        x = x.reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
        return norm(x) if norm is not None and self.norm_over == "head" else x
