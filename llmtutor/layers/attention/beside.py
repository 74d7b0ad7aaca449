"""Chapter 16, efficient-attention: a window, and rows of the past that are kept beside it.

What these rows are makes the variants: the first tokens of a text, or blocks that were compressed.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.layers.attention.cache import KVCache, WindowCache
from llmtutor.layers.attention.core import attention_weights
from llmtutor.layers.attention.heads import Attention
from llmtutor.layers.attention.rows import row_places


class BesideCache(WindowCache):
    """The last ``window`` tokens, and beside them keys and values of another shape, at first 0.

    These are (batch, n_kv_heads, …, head_dim), with the sizes of ``beside`` between.

    Raises:
        ValueError: as ``WindowCache``.
    """

    def __init__(
        self,
        batch: int,
        n_kv_heads: int,
        max_len: int,
        head_dim: int,
        *,
        beside: tuple[int, ...],
        **rest: Any,
    ) -> None:
        super().__init__(batch, n_kv_heads, max_len, head_dim, **rest)
        self.beside_keys = self.keys.new_zeros(batch, n_kv_heads, *beside, head_dim)
        self.beside_values = torch.zeros_like(self.beside_keys)

    @property
    def nbytes(self) -> int:
        """Bytes of all four tensors."""
        return super().nbytes + self.beside_keys.nbytes + self.beside_values.nbytes

    def reset(self) -> None:
        """Forget everything: what lies beside is 0 again."""
        super().reset()
        self.beside_keys.zero_()
        self.beside_values.zero_()

    def snapshot(self) -> Any:
        """A copy of everything."""
        return super().snapshot(), self.beside_keys.clone(), self.beside_values.clone()

    def restore(self, snapshot: Any) -> None:
        """Put the copy back."""
        window, keys, values = snapshot
        super().restore(window)
        self.beside_keys.copy_(keys)
        self.beside_values.copy_(values)


class BesideAttention(Attention):
    """``Attention`` behind a window, whose queries also see what is kept beside it.

    Without a window it is ``Attention``.
    """

    cache_kind: ClassVar[type[BesideCache]]
    """The cache behind a window."""

    @abstractmethod
    def beside(self, max_len: int) -> tuple[int, ...]:
        """The shape of what ``cache_kind`` keeps beside the window for a text of ``max_len``."""

    @abstractmethod
    def _all(
        self, x: Tensor, places: Tensor, cache: KVCache | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Queries, keys and values, the rows beside before the tokens, and the rules.

        ``places`` (rows, seq) are those of the tokens of ``x`` in their rows.
        """

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: KVCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """As ``Attention.forward``."""
        if self.window is None:
            return super().forward(x, cache=cache)
        length, starts = (0, None) if cache is None else (cache.length, cache.starts)
        places = row_places(length, x.shape[1], starts, x.device)
        q, k, v, rules = self._all(x, places, cache)
        return self._joined(self.attend(q, k, v, **rules), x)

    def weights(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch heads q k"]:
        """Of each query: those of the rows beside, then those of the tokens."""
        if self.window is None:
            return super().weights(x)
        q, k, _, rules = self._all(x, row_places(0, x.shape[1], None, x.device), None)
        return attention_weights(q, k, **rules)

    def _rules_of_both(self, beside: Tensor, tokens: Tensor, bias: Tensor | None) -> dict[str, Any]:
        """What ``attention`` is told, of masks (rows, q, k) for what lies beside and for tokens."""
        return {
            "mask": torch.cat((beside, tokens), dim=-1)[:, None],
            "bias": bias,
            "scale": 1 / math.sqrt(self.head_dim) if self.scale is None else self.scale,
            "softcap": self.softcap,
            "sinks": self.sinks,
        }

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> KVCache:
        """As ``Attention.make_cache``; with a window also for what is kept beside it."""
        if self.window is None:
            return super().make_cache(batch, max_len, starts=starts)
        return self.cache_kind(
            *(batch, self.n_kv_heads, max_len, self.head_dim),
            beside=self.beside(max_len),
            window=min(self.window, max_len),
            starts=starts,
            device=self.key.weight.device,
            dtype=self.key.weight.dtype,
        )
