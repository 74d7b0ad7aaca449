"""Chapter 16, efficient-attention: all positions compressed together, which no decoder can do.

Linformer was made for encoders, which read a whole text at once. It stands here to be looked at:
in what it compresses each position finds its own future.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.core import fused_attention
from llmtutor.layers.attention.grouping import check_groups
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, tag
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.part import Costs, Load, Site


class Linformer(Layer):
    """``softmax(Q (E K)ᵀ / √d) (F V)``: all positions become ``compressed`` rows.

    E and F are learned, (compressed, seq_len), the same for all heads (Wang et al. 2020, eq. 7,
    with headwise sharing); of a shorter text their first columns are used. Scores are then
    (seq, compressed) instead of (seq, seq). (batch, seq, d_model) → (batch, seq, d_model).

    >>> Linformer(8, n_heads=2, seq_len=16, compressed=4)(torch.zeros(1, 16, 8)).shape
    torch.Size([1, 16, 8])

    Raises:
        ValueError: sizes below 1, ``n_heads`` that do not divide ``d_model``; a text longer than
            ``seq_len``; whenever it is asked for a cache.
    """

    def __init__(self, d_model: int, n_heads: int, *, seq_len: int, compressed: int) -> None:
        super().__init__(n_heads=n_heads, seq_len=seq_len, compressed=compressed)
        check_at_least(1, d_model=d_model, seq_len=seq_len, compressed=compressed)
        check_groups(d_model, n_heads)
        self.n_heads, self.seq_len = n_heads, seq_len
        self.query, self.key, self.value = (Linear(d_model, d_model) for _ in range(3))
        self.output = tag(Linear(d_model, d_model), RESIDUAL)
        std = 1 / math.sqrt(seq_len)
        self.pool_key = nn.Parameter(std * torch.randn(compressed, seq_len))
        self.pool_value = nn.Parameter(std * torch.randn(compressed, seq_len))

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: Any = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """Every position reads rows that were made of all positions."""
        if cache is not None:
            refuse_to_decode()
        seq = x.shape[1]
        if seq > self.seq_len:
            raise ValueError(f"E and F have a column for each of {self.seq_len} tokens, got {seq}")
        keys = self.pool_key[:, :seq] @ self.key(x)
        values = self.pool_value[:, :seq] @ self.value(x)
        q, k, v = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part in (self.query(x), keys, values)
        )
        return self.output(fused_attention(q, k, v).transpose(1, 2).flatten(2))

    def make_cache(self, batch: int, max_len: int, *, starts: Tensor | None = None) -> NoReturn:
        """There is none."""
        refuse_to_decode()


def refuse_to_decode() -> NoReturn:
    """Raise ``ValueError``."""
    raise ValueError(
        "Linformer compresses all positions together, so that each sees its future: it cannot "
        "stand in a decoder or continue a text; take the mixer 'blockwise-linformer', which "
        "compresses finished blocks only"
    )


@dataclass(frozen=True)
class LinformerConfig(MixerConfig):
    """``Linformer``, which a decoder refuses by name when it is built.

    It is in no registry: no configuration of a decoder can hold it.
    """

    kind: ClassVar[str] = "linformer"
    n_heads: int
    """Heads."""
    compressed: int = 4
    """Rows that remain of all positions."""

    def build(self, site: Site) -> NoReturn:
        """A ``ValueError``."""
        refuse_to_decode()

    def costs(self, site: Site, load: Load) -> Costs:
        """A ``ValueError``."""
        refuse_to_decode()
