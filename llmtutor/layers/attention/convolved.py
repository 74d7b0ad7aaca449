"""Chapter 20, comparison: attention that has the short convolution of the layers with a state.

Mamba and DeltaNet look at the last few tokens by a convolution before they do anything else. What
of their gain is that convolution's? Attention with one answers half of it, a state without one the
other half. (So et al. 2021, Primer, put one of width 3, without the ``silu``, behind the
projections of attention.)
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.cache import KVCache
from llmtutor.layers.attention.core import attention_weights
from llmtutor.layers.attention.heads import Attention, AttentionConfig
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.recurrent.conv import CausalConv
from llmtutor.layers.recurrent.heads import continued, empty_past, short_conv, tail_size
from llmtutor.layers.recurrent.state import StateCache


class ConvolvedCache:
    """Keys and values of the past, and the last inputs of the convolution that made them.

    It goes back to a snapshot only: the inputs of an earlier time are not kept.

    >>> tail = StateCache(8, tail=torch.zeros(1, 3, 2))
    >>> ConvolvedCache(KVCache(1, 1, 8, 2), tail).nbytes  # 2 · 8 · 2 numbers and 3 · 2
    152
    """

    always_crops = False

    def __init__(self, past: KVCache, tail: StateCache) -> None:
        self.past, self.tail = past, tail

    @property
    def length(self) -> int:
        """How many tokens went in, padding included."""
        return self.past.length

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.past.nbytes + self.tail.nbytes

    @property
    def starts(self) -> Tensor | None:
        """The place of the first real token of each row."""
        return self.past.starts

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values up to now, as of ``KVCache``."""
        return self.past.append(k, v)

    def reset(self) -> None:
        """Forget everything."""
        self.past.reset()
        self.tail.reset()

    def can_crop(self, length: int) -> bool:
        """To where it stands."""
        return self.tail.can_crop(length)

    def crop(self, length: int) -> None:
        """Nothing, where it stands.

        Raises:
            ValueError: ``can_crop`` says no.
        """
        self.tail.crop(length)

    def snapshot(self) -> Any:
        """What both need."""
        return self.past.snapshot(), self.tail.snapshot()

    def restore(self, snapshot: Any) -> None:
        """Go back."""
        past, tail = snapshot
        self.past.restore(past)
        self.tail.restore(tail)


class ConvolvedAttention(Attention):
    """``Attention`` whose queries, keys and values are ``silu(conv(x Wᵀ))``, channel by channel.

    The convolution reaches back ``conv_width`` tokens, the present one included, and comes before
    norm and rotation, as in ``DeltaNet``. (batch, seq, d_model) → (batch, seq, d_model).

    Raises:
        ValueError: as ``Attention``; a width below 1, ``causal=False``.
    """

    def __init__(self, d_model: int, n_heads: int, *, conv_width: int = 4, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        check_at_least(1, conv_width=conv_width)
        if not self.causal:
            raise ValueError("a convolution over past tokens needs causal=True")
        self.settings["conv_width"] = conv_width
        parts = (self.query, self.key, self.value)
        self.widths = [len(part.weight) for part in parts]
        self.conv = CausalConv(sum(self.widths), conv_width)

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """As ``Attention.weights``."""
        q, k, _, positions = self._projected(x, None)
        return attention_weights(q, k, **self._rules(q, positions, positions, None))

    def make_cache(  # type: ignore[override]
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> ConvolvedCache:
        """As ``Attention.make_cache``, with the tail of the convolution."""
        past = super().make_cache(batch, max_len, starts=starts)
        tail = empty_past(tail_size(batch, self.conv), max_len, starts, self.key.weight)
        return ConvolvedCache(past, tail)

    def _projected(  # type: ignore[override]  # a cache of its own
        self, x: Tensor, cache: ConvolvedCache | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        start, tail = (0, None) if cache is None else (cache.length, cache.tail)
        real = continued(x, tail, lambda batch: tail_size(batch, self.conv))
        mixed = torch.cat((self.query(x), self.key(x), self.value(x)), dim=-1)
        mixed, tails = short_conv(self.conv, mixed, real, tail)
        if tail is not None:
            tail.keep(x.shape[1], **tails)
        q, k, v = mixed.split(self.widths, dim=-1)
        q, k = self._split(q, self.query_norm), self._split(k, self.key_norm)
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        return *self.position.rotate_both(q, k, positions), self._split(v), positions


@dataclass(frozen=True)
class ConvolvedConfig(AttentionConfig):
    """``ConvolvedAttention``."""

    kind: ClassVar[str] = "convolved-attention"
    conv_width: int = 4
    """Tokens that the convolution looks at, the present one included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, conv_width=self.conv_width)

    def build(self, site: Site) -> ConvolvedAttention:
        """The layer."""
        return ConvolvedAttention(site.d_model, **self.options(site))

    def costs(self, site: Site, load: Load) -> Costs:
        """Those of ``Attention``, the taps, and the tail; no product of matrices is added."""
        width = (self.n_heads + 2 * self.kv_heads) * self.width(site.d_model)
        taps, tail = self.conv_width * width, (self.conv_width - 1) * width
        kept = 2 * width * load.tokens_bytes
        own = super().costs(site, load)
        return own + Costs(taps, taps, 0, tail * load.batch * load.itemsize, kept)
