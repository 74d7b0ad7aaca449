"""Chapter 16, efficient-attention: a past that is compressed block by block, beside a window.

Linformer (Wang et al. 2020) compresses all positions together, so that the future of each is in
what it reads. Here only *finished* blocks are compressed, and a query reads those before its own
block: as the causal form of Long-Short Transformer (Zhu et al. 2021) and the compressed branch of
Native Sparse Attention (Yuan et al. 2025).
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.beside import BesideAttention, BesideCache
from llmtutor.layers.attention.cache import KVCache
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.rows import bias_of_both, rotate_rows, seen_in_window
from llmtutor.layers.part import Costs, Load, Site


class BlockCache(BesideCache):
    """The last ``window`` tokens, and beside them, for each block of the text, compressed rows.

    A block is summed up as its tokens arrive: each adds its share to the rows of its block, so
    that nothing has to be kept until a block is full.
    """

    no_way = "older ones were compressed; reset it, or restore a snapshot"

    def add(
        self,
        k: Float[Tensor, "batch n_kv_heads new head_dim"],
        v: Float[Tensor, "batch n_kv_heads new head_dim"],
        shares: tuple[Tensor, Tensor],
        blocks: Int[Tensor, "rows new"],
    ) -> tuple[Tensor, Tensor]:
        """All compressed rows, after each new token has added its ``shares`` to its block.

        ``shares`` are (rows, new, compressed), for keys and values.
        """
        for kept, x, share in zip(
            (self.beside_keys, self.beside_values), (k, v), shares, strict=True
        ):
            added = share[:, None, :, :, None] @ x.detach()[:, :, :, None]
            where = blocks[:, None, :, None, None].expand_as(added)
            kept.scatter_add_(2, where, added)
        return self.beside_keys.flatten(2, 3), self.beside_values.flatten(2, 3)


def n_blocks(seq: int, block: int) -> int:
    """Blocks that ``seq`` tokens begin: one more than are finished, unless they end with one."""
    return -(-seq // block)


class BlockwiseAttention(BesideAttention):
    """``Attention`` to the last ``window`` tokens, and to ``compressed`` rows of each past block.

    The text is cut into blocks of ``block`` tokens. Of a block with keys K (block, head_dim) and
    values V remain ``E K`` and ``F V`` with learned E and F (compressed, block), the same for all
    heads and blocks; at first each row is the mean of its section of the block. One softmax goes
    over these rows and the window. A query at position t sees the rows of the blocks before
    its own, ``t // block``; with a window of at least a block it misses no token between.

    Keys are compressed before their rotation, and a row is turned as a key at the last token of
    its section. (Linformer's eq. 7 with blocks; the papers named above normalise, or gate, the
    two parts by themselves.)

    >>> layer = BlockwiseAttention(8, n_heads=2, block=4, compressed=2)
    >>> layer(torch.zeros(1, 10, 8)).shape, layer.pool_key[0].tolist()
    (torch.Size([1, 10, 8]), [0.5, 0.5, 0.0, 0.0])

    Raises:
        ValueError: as ``Attention``; what ``BlockwiseConfig`` refuses.
    """

    cache_kind: ClassVar[type[BesideCache]] = BlockCache

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        block: int = 8,
        compressed: int = 2,
        window: int | None = None,
        **options: Any,
    ) -> None:
        check_blocks(block, compressed, window)
        super().__init__(d_model, n_heads, window=window or block, **options)
        self.settings |= {"block": block, "compressed": compressed}
        self.block, self.compressed = block, compressed
        section = block // compressed
        means = torch.eye(compressed).repeat_interleave(section, dim=1) / section
        self.pool_key, self.pool_value = nn.Parameter(means), nn.Parameter(means.clone())

    def beside(self, max_len: int) -> tuple[int, ...]:
        """The rows of all blocks."""
        return n_blocks(max_len, self.block), self.compressed

    def _all(
        self, x: Tensor, places: Tensor, cache: KVCache | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        assert self.window is not None
        q = rotate_rows(self.position, self._split(self.query(x), self.query_norm), places)
        plain_k, new_v = self._split(self.key(x), self.key_norm), self._split(self.value(x))
        k, v = rotate_rows(self.position, plain_k, places), new_v
        if isinstance(cache, BlockCache):
            k, v = cache.append(k, v)
            shares = self._shares(self.pool_key, places), self._shares(self.pool_value, places)
            far_k, far_v = cache.add(plain_k, new_v, shares, places.clamp(min=0) // self.block)
        else:
            far_k, far_v = self._pooled(plain_k, self.pool_key), self._pooled(v, self.pool_value)
        rows = torch.arange(far_k.shape[2], device=x.device)
        ends = (rows + 1) * (self.block // self.compressed) - 1
        past = rows // self.compressed < (places // self.block)[:, :, None]
        in_window = seen_in_window(places, k.shape[2], self.window)
        bias = bias_of_both(self.position, q, places, ends, k.shape[2])
        rules = self._rules_of_both(past, in_window, bias)
        k = torch.cat((self.position.rotate(far_k, ends), k), dim=2)
        return q, k, torch.cat((far_v, v), dim=2), rules

    def _pooled(self, x: Tensor, pool: Tensor) -> Tensor:
        """Rows of all blocks; those of one that is not finished mean nothing, and nobody looks.

        All in one product with a matrix that is ``pool`` in each block of its diagonal, else 0:
        an E of Linformer in which no row looks outside of its block.
        """
        tokens = torch.arange(x.shape[2], device=x.device)
        n_rows = n_blocks(x.shape[2], self.block) * self.compressed
        rows = torch.arange(n_rows, device=x.device)[:, None]
        inside = rows // self.compressed == tokens // self.block
        return pool[rows % self.compressed, tokens % self.block] * inside @ x

    def _shares(self, pool: Tensor, places: Tensor) -> Tensor:
        """What a token at its place gives to each row of its block; padding gives nothing."""
        return pool.detach().T[places % self.block] * (places >= 0)[..., None]


def check_blocks(block: int, compressed: int, window: int | None) -> None:
    """Raise ``ValueError`` unless sections are whole and the window reaches over a block."""
    check_at_least(1, block=block, compressed=compressed)
    if block % compressed:
        raise ValueError(
            f"compressed must divide block, so that each row stands for as many tokens: got "
            f"compressed = {compressed}, block = {block}"
        )
    if window is not None and window < block:
        raise ValueError(
            f"the window must be at least a block, or tokens of the block that is not finished "
            f"are seen by nobody: got window = {window}, block = {block}"
        )


@dataclass(frozen=True)
class BlockwiseConfig(AttentionConfig):
    """``BlockwiseAttention``; ``window`` is None for a window of one block."""

    kind: ClassVar[str] = "blockwise-linformer"
    block: int = 8
    """Tokens that are compressed together."""
    compressed: int = 2
    """Rows that remain of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.block, self.compressed, self.window)

    def build(self, site: Site) -> BlockwiseAttention:
        """The layer."""
        return BlockwiseAttention(site.d_model, **self.options(site))

    def costs(self, site: Site, load: Load) -> Costs:
        """Those of a window, and of the rows of all blocks that have begun."""
        own = AttentionConfig.costs(replace(self, window=self.window or self.block), site, load)
        rows = n_blocks(load.seq, self.block) * self.compressed
        q = self.n_heads * self.width(site.d_model)
        kv = self.kv_heads * self.width(site.d_model)
        scheme = self.position.costs(self.n_heads, self.width(site.d_model), load)  # asked twice
        pools = 2 * self.compressed * self.block
        square = (4 * load.itemsize + 2) * rows * load.seq  # their block diagonals, and what is 0
        return own + Costs(
            parameters=pools,
            active=pools,
            flops=4 * rows * q + 4 * self.compressed * kv + scheme.flops,
            cache_bytes=2 * kv * load.batch * rows * load.itemsize,
            activation_bytes=2 * kv * load.batch * (load.seq + rows) * load.itemsize + square,
        )
