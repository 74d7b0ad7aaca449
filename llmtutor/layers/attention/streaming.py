"""Chapter 16, efficient-attention: a window that never forgets the first tokens of a text.

Trained models leave much attention on the first tokens (Xiao et al. 2024, StreamingLLM): a place
for what a head does not want to spend elsewhere. When a window pushes them out, that place is gone.
So they are kept, and the text may go on for as long as it likes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.beside import BesideAttention, BesideCache
from llmtutor.layers.attention.cache import KVCache
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.rows import bias_of_both, rotate_rows, seen_in_window
from llmtutor.layers.part import Costs, Load, Site


class StreamingCache(BesideCache):
    """The last ``window`` tokens, and beside them the first of the text, of each row its own."""

    no_way = "older ones were pushed out between the first and its window; restore a snapshot"

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As ``WindowCache``; what is among the first of its row is also kept for good."""
        length = self.length
        rows = super().append(k, v)
        places = torch.arange(self.beside_keys.shape[2], device=k.device)[None] - length
        if self.starts is not None:
            places = places + self.starts[:, None]
        new = (places >= 0) & (places < k.shape[2])
        index = places.clamp(0, k.shape[2] - 1)[:, None, :, None]
        for kept, x in ((self.beside_keys, k), (self.beside_values, v)):
            found = x.detach().gather(2, index.expand_as(kept))
            kept.copy_(torch.where(new[:, None, :, None], found, kept))
        return rows


class StreamingAttention(BesideAttention):
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

    cache_kind: ClassVar[type[BesideCache]] = StreamingCache

    def __init__(self, d_model: int, n_heads: int, *, kept_first: int = 4, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        check_at_least(1, kept_first=kept_first)
        self.kept_first = self.settings["kept_first"] = kept_first

    def beside(self, max_len: int) -> tuple[int, ...]:
        """The first tokens."""
        return (min(self.kept_first, max_len),)

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """Of each query: those of the first tokens, then those of all the others."""
        weights = super().weights(x)
        if self.window is None:
            return weights
        first = min(self.kept_first, x.shape[1])
        return torch.cat((weights[..., :first], weights[..., 2 * first :]), dim=-1)

    def _all(
        self, x: Tensor, places: Tensor, cache: KVCache | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        assert self.window is not None
        capped = places.clamp(max=self.kept_first + self.window - 1)
        q = self._split(self.query(x), self.query_norm)
        k = rotate_rows(self.position, self._split(self.key(x), self.key_norm), places)
        v = self._split(self.value(x))
        first_k, first_v = (part[:, :, : self.kept_first] for part in (k, v))
        if isinstance(cache, StreamingCache):
            k, v = cache.append(k, v)
            first_k, first_v = cache.beside_keys, cache.beside_values
        first = torch.arange(first_k.shape[2], device=x.device)
        begun = first <= places[:, :, None]
        in_window = seen_in_window(places, k.shape[2], self.window, first=self.kept_first)
        bias = bias_of_both(self.position, q, capped, first, k.shape[2])
        rules = self._rules_of_both(begun, in_window, bias)
        # A product with (key, 0) reads the half turned for the window, with (0, key) the other.
        near, far = (rotate_rows(self.position, q, where) for where in (places, capped))
        keys = F.pad(first_k, (self.head_dim, 0)), F.pad(k, (0, self.head_dim))
        q, k = torch.cat((near, far), dim=-1), torch.cat(keys, dim=2)
        return q, k, torch.cat((first_v, v), dim=2), rules


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
        return StreamingAttention(site.d_model, **self.options(site))

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
