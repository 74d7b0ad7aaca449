"""Chapter 16, efficient-attention: a window that never forgets the first tokens of a text.

Trained models leave much attention on the first tokens (Xiao et al. 2024, StreamingLLM): a place
for what a head does not want to spend elsewhere. When a window pushes them out, that place is gone.
So they are kept, and the text may go on for as long as it likes.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.cache import KVCache, WindowCache
from llmtutor.layers.attention.core import attention_weights
from llmtutor.layers.attention.heads import Attention, AttentionConfig
from llmtutor.layers.attention.rows import (
    bias_of_both,
    rotate_rows,
    row_places,
    seen_in_window,
)
from llmtutor.layers.part import Costs, Load, Site


class StreamingCache(WindowCache):
    """The last ``window`` tokens and the first ``kept_first``, of each row its own.

    Raises:
        ValueError: as ``WindowCache``; ``kept_first`` below 1.
    """

    no_way = "older ones were pushed out between the first and its window; restore a snapshot"

    def __init__(
        self,
        batch: int,
        n_kv_heads: int,
        max_len: int,
        head_dim: int,
        *,
        kept_first: int,
        **rest: Any,
    ) -> None:
        check_at_least(1, kept_first=kept_first)
        super().__init__(batch, n_kv_heads, max_len, head_dim, **rest)
        shape = (batch, n_kv_heads, min(kept_first, max_len), head_dim)
        self.first_keys = self.keys.new_zeros(shape)
        self.first_values = torch.zeros_like(self.first_keys)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As ``WindowCache``; what is among the first of its row is also kept for good."""
        length = self.length
        rows = super().append(k, v)
        places = torch.arange(self.first_keys.shape[2], device=k.device)[None] - length
        if self.starts is not None:
            places = places + self.starts[:, None]
        new = (places >= 0) & (places < k.shape[2])
        index = places.clamp(0, k.shape[2] - 1)[:, None, :, None]
        for kept, x in ((self.first_keys, k), (self.first_values, v)):
            found = x.detach().gather(2, index.expand_as(kept))
            kept.copy_(torch.where(new[:, None, :, None], found, kept))
        return rows

    @property
    def nbytes(self) -> int:
        """Bytes of all four tensors."""
        return super().nbytes + self.first_keys.nbytes + self.first_values.nbytes

    def snapshot(self) -> Any:
        """A copy of everything."""
        return super().snapshot(), self.first_keys.clone(), self.first_values.clone()

    def restore(self, snapshot: Any) -> None:
        """Put the copy back."""
        window, first_keys, first_values = snapshot
        super().restore(window)
        self.first_keys.copy_(first_keys)
        self.first_values.copy_(first_values)


class StreamingAttention(Attention):
    """``Attention`` behind a window, which also sees the first ``kept_first`` tokens at all times.

    To the first tokens a query stands where it would stand if the text were no more than they and
    its window: positions are those *inside the cache*, so that no distance is larger than the
    window and the first tokens together, however long the text. Between tokens of the window
    distances are what they are. (Xiao et al. 2024, section 3.2; they turn cached keys anew for
    each token, here the query has two halves, one turned for the window and one for the first.)

    With the weights of a trained ``Attention`` it reads and writes texts longer than those it was
    trained on. Without a window it is ``Attention``.

    Raises:
        ValueError: as ``Attention``; ``kept_first`` below 1.
    """

    def __init__(self, d_model: int, n_heads: int, *, kept_first: int = 4, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        check_at_least(1, kept_first=kept_first)
        self.kept_first = self.settings["kept_first"] = kept_first

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: KVCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """As ``Attention.forward``."""
        if self.window is None:
            return super().forward(x, cache=cache)
        q, k, v, rules = self._halves(x, cache)
        return self._joined(self.attend(q, k, v, **rules), x)

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """Of each query: those of the first tokens, then those of all the others."""
        if self.window is None:
            return super().weights(x)
        q, k, _, rules = self._halves(x, None)
        weights = attention_weights(q, k, **rules)
        first = min(self.kept_first, x.shape[1])
        return torch.cat((weights[..., :first], weights[..., 2 * first :]), dim=-1)

    def _halves(
        self, x: Tensor, cache: KVCache | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Queries, keys and values, the first tokens before the others, and the rules."""
        assert self.window is not None
        length, starts = (0, None) if cache is None else (cache.length, cache.starts)
        places = row_places(length, x.shape[1], starts, x.device)
        capped = places.clamp(max=self.kept_first + self.window - 1)
        q = self._split(self.query(x), self.query_norm)
        k = rotate_rows(self.position, self._split(self.key(x), self.key_norm), places)
        v = self._split(self.value(x))
        first_k, first_v = (part[:, :, : self.kept_first] for part in (k, v))
        if isinstance(cache, StreamingCache):
            k, v = cache.append(k, v)
            first_k, first_v = cache.first_keys, cache.first_values
        first = torch.arange(first_k.shape[2], device=x.device)
        begun = first <= places[:, :, None]
        in_window = seen_in_window(places, k.shape[2], self.window, first=self.kept_first)
        rules = {
            "mask": torch.cat((begun, in_window), dim=-1)[:, None],
            "bias": bias_of_both(self.position, q, capped, first, k.shape[2]),
            "scale": 1 / math.sqrt(self.head_dim) if self.scale is None else self.scale,
            "softcap": self.softcap,
            "sinks": self.sinks,
        }
        # A product with (key, 0) reads the half turned for the window, with (0, key) the other.
        near, far = (rotate_rows(self.position, q, where) for where in (places, capped))
        keys = F.pad(first_k, (self.head_dim, 0)), F.pad(k, (0, self.head_dim))
        q, k = torch.cat((near, far), dim=-1), torch.cat(keys, dim=2)
        return q, k, torch.cat((first_v, v), dim=2), rules

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> KVCache:
        """As ``Attention.make_cache``; with a window also for the first tokens."""
        plain = super().make_cache(batch, max_len, starts=starts)
        if self.window is None:
            return plain
        where: dict[str, Any] = {"device": plain.keys.device, "dtype": plain.keys.dtype}
        return StreamingCache(
            *(batch, self.n_kv_heads, max_len, self.head_dim),
            kept_first=self.kept_first,
            window=min(self.window, max_len),
            starts=starts,
            **where,
        )


@dataclass(frozen=True)
class StreamingConfig(AttentionConfig):
    """``StreamingAttention``."""

    kind: ClassVar[str] = "streaming"
    kept_first: int = 4
    """First tokens of a text that stay in sight behind a window."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, kept_first=self.kept_first)

    def build(self, site: Site) -> StreamingAttention:
        """The layer."""
        position = self.position.build(site, self.n_heads, self.width(site.d_model))
        return StreamingAttention(site.d_model, **self.values() | {"position": position})

    def costs(self, site: Site, load: Load) -> Costs:
        """Those of ``Attention``, and the first tokens; scores are products of twice the width."""
        own = super().costs(site, load)
        if self.window is None:
            return own
        first, seen = min(load.seq, self.kept_first), min(load.seq, self.window)
        q = self.n_heads * self.width(site.d_model)
        kv = self.kv_heads * self.width(site.d_model)
        scheme = self.position.costs(self.n_heads, self.width(site.d_model), load)  # asked twice
        kept = (q + kv) * load.tokens_bytes
        if not (scheme.activation_bytes or self.sinks or self.softcap):
            # Values are half as wide as queries: torch 2.13 takes a path that stores the weights.
            kept += self.n_heads * (load.seq + first) * load.tokens_bytes
        return own + Costs(
            flops=2 * seen * q + 6 * first * q + scheme.flops,
            cache_bytes=2 * kv * load.batch * first * load.itemsize,
            activation_bytes=kept,
        )
