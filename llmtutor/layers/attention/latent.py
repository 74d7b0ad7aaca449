"""Chapter 15, mla: attention that keeps one small vector of each token for all its heads.

Keys and values of every head are made from the same *latent*, so the cache holds the latent alone.
A second, tiny key that all heads share carries the position. Multi-head latent attention, MLA, is
that of DeepSeek-V2 (arXiv 2405.04434, section 2.1).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least, check_number
from llmtutor.layers.attention.core import fused_attention
from llmtutor.layers.attention.latent_cache import LatentCache
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, tag
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.norms import NormConfig, RMSNormConfig
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.positions import base as scheme
from llmtutor.layers.positions.rope import RopeConfig


class Widths(NamedTuple):
    """Sizes of a layer in a model whose width is known."""

    nope: int
    """Components of a head's query and key that know no position ("no positional encoding")."""
    rope: int
    """Components of a head's query that turn, and of the one key that they meet."""
    v: int
    """Components of a head's value."""
    kv_rank: int
    """Numbers in the latent."""
    q_rank: int | None
    """Numbers between the two projections to queries; None for one projection."""

    @property
    def row(self) -> int:
        """Numbers that the cache holds of a token."""
        return self.kv_rank + self.rope


@dataclass(frozen=True)
class LatentAttentionConfig(MixerConfig):
    """``LatentAttention``; what is None follows from the model's width."""

    kind: ClassVar[str] = "mla"
    n_heads: int
    """Heads; each has keys and values of its own."""
    kv_rank: int | None = None
    """Numbers in the latent of keys and values; None for a quarter of d_model."""
    q_rank: int | None = None
    """Numbers in a latent of the queries; None for a plain projection."""
    nope_dim: int | None = None
    """Components of a head without a position; None for d_model / n_heads."""
    rope_dim: int | None = None
    """Components that turn, in pairs; None for half of ``nope_dim``, or 0 without a position."""
    v_dim: int | None = None
    """Components of a head's value; None for as many as ``nope_dim``."""
    position: scheme.AttentionPositionConfig = RopeConfig()  # noqa: RUF009 (it is frozen)
    """RoPE, or none."""
    latent_norm: NormConfig | None = RMSNormConfig(1e-6)  # noqa: RUF009
    """Norm of both latents; None as after a conversion (``model.latent``)."""
    scale: float | None = None
    """Factor of the scores; None for 1/√(nope_dim + rope_dim)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ranks = {"kv_rank": self.kv_rank, "q_rank": self.q_rank}
        check_at_least(1, n_heads=self.n_heads, nope_dim=self.nope_dim, v_dim=self.v_dim, **ranks)
        check_at_least(0, rope_dim=self.rope_dim)
        if not isinstance(self.position, RopeConfig | scheme.NoPositionConfig):
            raise ValueError(
                "the position of latent attention must be 'rope' or 'none', "
                f"got {self.position.kind!r}"
            )
        if (self.rope_dim or 0) % 2:
            raise ValueError(f"rope_dim must be even, RoPE turns pairs: got {self.rope_dim}")
        if self.rope_dim == 0 and isinstance(self.position, RopeConfig):
            raise ValueError("rope_dim = 0 leaves RoPE nothing to turn; set position to 'none'")
        if self.scale is not None:
            check_number("scale", self.scale, above=0)

    def widths(self, d_model: int) -> Widths:
        """All sizes.

        Raises:
            ValueError: ``n_heads`` that do not divide ``d_model`` where ``nope_dim`` is None; a
                rank above the widths on its two sides, which would compress nothing.
        """
        if self.nope_dim is None and d_model % self.n_heads:
            raise ValueError(
                f"n_heads must divide d_model unless nope_dim is given, got d_model = {d_model} "
                f"and n_heads = {self.n_heads}: {d_model / self.n_heads:g} components a head"
            )
        nope = self.nope_dim or d_model // self.n_heads
        rope, v = self.rope_dim, self.v_dim or nope
        if rope is None:
            rope = max(2, nope // 4 * 2) if isinstance(self.position, RopeConfig) else 0
        kv_rank = self.kv_rank or max(1, d_model // 4)
        _check_rank("kv_rank", kv_rank, d_model, self.n_heads * (nope + v), "keys and values")
        if self.q_rank is not None:
            _check_rank("q_rank", self.q_rank, d_model, self.n_heads * (nope + rope), "queries")
        return Widths(nope, rope, v, kv_rank, self.q_rank)

    def build(self, site: Site) -> "LatentAttention":
        """The layer."""
        rope = self.widths(site.d_model).rope
        none = scheme.NoPositionConfig()
        position = (self.position if rope else none).build(site, self.n_heads, rope)
        return LatentAttention(site.d_model, **self.values() | {"position": position})

    def costs(self, site: Site, load: Load) -> Costs:
        """One more token goes through the absorbed path; a whole text is decompressed.

        Both multiply a token with each matrix once. They differ in the width of what meets in the
        scores and in the values: ``2 · kv_rank + rope`` for a head, or ``nope + rope + v``.
        """
        w, h = self.widths(site.d_model), self.n_heads
        queries, values = h * (w.nope + w.rope), h * w.v
        matrices = site.d_model * (w.row + values) + w.kv_rank * h * (w.nope + w.v)
        matrices += queries * (w.q_rank or site.d_model) + site.d_model * (w.q_rank or 0)
        met = w.nope + w.rope + w.v if load.at_once else w.row + w.kv_rank
        flops = 2 * matrices + 2 * h * met * load.seq
        kept = 2 * (queries + values) * load.tokens_bytes + self._weights_bytes(w, load)
        total = Costs(matrices, matrices, flops, w.row * load.tokens_bytes, kept)
        for width in filter(None, (w.kv_rank, w.q_rank)):
            if self.latent_norm is None:  # the latent itself goes into the next projection
                total += Costs(activation_bytes=width * load.tokens_bytes)
            else:
                total += self.latent_norm.costs(width, load.tokens_bytes)
        return total

    def _weights_bytes(self, w: Widths, load: Load) -> int:
        """torch's kernel for CPUs stores the weights where a value is not as wide as a key."""
        if w.nope + w.rope == w.v:
            return 4 * self.n_heads * load.batch * load.seq
        return load.itemsize * self.n_heads * load.batch * load.seq**2


class LatentAttention(Layer):
    """Causal self-attention whose heads make their keys and values from one latent for each token.

    Of a token x all heads share ``c = norm(W_DKV x)``, the latent, and ``k_R = rope(W_KR x)``, a
    key that is turned to its position. Head h makes ``k_h = [W_UK,h c, k_R]`` and
    ``v_h = W_UV,h c`` from them; its query has two such parts too. From then on it is attention.
    (batch, seq, d_model) → (batch, seq, d_model).

    ``decompressed`` does just that. ``absorbed`` never makes keys or values: the products
    ``q · (W_UK,h c)`` and ``(W_UK,hᵀ q) · c`` are the same number, so the query goes to the latent
    instead. The first is cheaper where a whole text is read, the second where a cache is.

    ``position`` is a ``Rope`` of width ``rope_dim``, or None. ``options`` are the other fields of
    ``LatentAttentionConfig``.

    >>> layer = LatentAttention(8, n_heads=2, kv_rank=3)
    >>> layer(torch.zeros(1, 5, 8)).shape, layer.make_cache(1, 5).rows.shape
    (torch.Size([1, 5, 8]), torch.Size([1, 5, 3]))

    Raises:
        ValueError: what ``LatentAttentionConfig`` refuses; an input that is not (batch, seq,
            d_model), a cache made for other shapes.
    """

    def __init__(
        self, d_model: int, n_heads: int, *, position: scheme.Position | None = None, **options: Any
    ) -> None:
        check_at_least(1, d_model=d_model)
        bare = position is None or isinstance(position, scheme.NoPosition)
        turning = scheme.NoPositionConfig() if bare else RopeConfig()
        config = LatentAttentionConfig(n_heads, position=turning, **options)
        w = config.widths(d_model)
        super().__init__(n_heads=n_heads, **w._asdict())
        self.n_heads, self.widths = n_heads, w
        self.scale = (w.nope + w.rope) ** -0.5 if config.scale is None else config.scale
        norm = config.latent_norm
        self.query_down = Linear(d_model, w.q_rank) if w.q_rank else None
        self.query_norm = norm.build(w.q_rank) if w.q_rank and norm else None
        self.query = Linear(w.q_rank or d_model, n_heads * (w.nope + w.rope))
        self.latent = Linear(d_model, w.kv_rank)
        self.latent_norm = norm.build(w.kv_rank) if norm else None
        self.rope_key = Linear(d_model, w.rope) if w.rope else None
        self.key_up = Linear(w.kv_rank, n_heads * w.nope)
        self.value_up = Linear(w.kv_rank, n_heads * w.v)
        self.output = tag(Linear(n_heads * w.v, d_model), RESIDUAL)
        self.position = scheme.NoPosition() if position is None else position
        self.attend = fused_attention
        """``attention``, or a function that gives the same."""

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: LatentCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """Attend within each sequence: (batch, seq, d_model) → (batch, seq, d_model).

        With a ``cache``, ``x`` holds the next tokens, any number of them, and their queries see
        the past in the cache too, which then holds the new ones as well.
        """
        if x.ndim != 3:
            raise ValueError(f"x must be (batch, seq, d_model), got shape {tuple(x.shape)}")
        start = 0 if cache is None else cache.length
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        q, rows = self.queries(x, positions), self.compress(x, positions)
        mask = None
        if cache is not None:
            rows = cache.append(rows)
            if cache.starts is not None:
                slots = torch.arange(cache.length, device=x.device)
                mask = slots >= cache.starts[:, None, None, None]
        whole = cache is None or (start == 0 and x.shape[1] > 1)
        heads = (self.decompressed if whole else self.absorbed)(q, rows, mask)
        return self.output(heads.transpose(1, 2).flatten(2))

    def queries(
        self, x: Float[Tensor, "batch seq d_model"], positions: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch heads seq width"]:
        """``nope`` components of each head as they are, then ``rope`` turned to their position."""
        if self.query_down is not None:
            x = self.query_down(x)
            x = x if self.query_norm is None else self.query_norm(x)
        q = self.query(x).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
        if self.rope_key is None:
            return q
        plain, turning = q.split((self.widths.nope, self.widths.rope), dim=-1)
        return torch.cat((plain, self.position.rotate(turning, positions)), dim=-1)

    def compress(
        self, x: Float[Tensor, "batch seq d_model"], positions: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch seq row"]:
        """All that is kept of each token: the normalised latent, then the shared key, turned."""
        latent = self.latent(x)
        latent = latent if self.latent_norm is None else self.latent_norm(latent)
        if self.rope_key is None:
            return latent
        key = self.position.rotate(self.rope_key(x), positions)
        return torch.cat((latent, key), dim=-1)

    def decompressed(
        self,
        q: Float[Tensor, "batch heads q width"],
        rows: Float[Tensor, "batch k row"],
        mask: Tensor | None = None,
    ) -> Float[Tensor, "batch heads q v"]:
        """Keys and values of every head, and plain attention among them."""
        latent, shared = rows.split((self.widths.kv_rank, self.widths.rope), dim=-1)
        k = self.key_up(latent).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
        v = self.value_up(latent).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
        k = torch.cat((k, shared[:, None].expand(-1, self.n_heads, -1, -1)), dim=-1)
        return self.attend(q, k, v, mask=mask, causal=True, scale=self.scale)

    def absorbed(
        self,
        q: Float[Tensor, "batch heads q width"],
        rows: Float[Tensor, "batch k row"],
        mask: Tensor | None = None,
    ) -> Float[Tensor, "batch heads q v"]:
        """The same without keys or values: each row is one wide key for all heads.

        It is multi-query attention whose values are the first ``kv_rank`` components of its keys.
        """
        w = self.widths
        plain, turned = q.split((w.nope, w.rope), dim=-1)
        key_up = self.key_up.weight.unflatten(0, (self.n_heads, w.nope))
        value_up = self.value_up.weight.unflatten(0, (self.n_heads, w.v))
        q = torch.cat((plain @ key_up, turned), dim=-1)
        keys, latents = rows[:, None], rows[:, None, :, : w.kv_rank]
        mixed = self.attend(q, keys, latents, mask=mask, causal=True, scale=self.scale)
        return mixed @ value_up.transpose(-2, -1)

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> LatentCache:
        """An empty cache for this layer, with the device and dtype of its weights.

        Raises:
            ValueError: as ``LatentCache``.
        """
        weight = self.latent.weight
        return LatentCache(
            batch,
            max_len,
            kv_rank=self.widths.kv_rank,
            rope_dim=self.widths.rope,
            starts=starts,
            device=weight.device,
            dtype=weight.dtype,
        )


def _check_rank(name: str, rank: int, d_model: int, width: int, what: str) -> None:
    if rank > min(d_model, width):
        raise ValueError(
            f"{name} must be at most d_model = {d_model} and {width}, the components of all "
            f"heads' {what}, got {rank}: a longer vector would compress nothing"
        )
