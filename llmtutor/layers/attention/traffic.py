"""Chapter 16, efficient-attention: how many numbers attention moves, counted and by formula.

A processor computes in a small fast memory and keeps its tensors in a large slow one. What goes
between the two often takes longer than the sums themselves. All counts are of numbers, not bytes.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from llmtutor.checks import check_at_least


@dataclass
class Traffic:
    """Numbers that were read from the slow memory, and written to it.

    >>> import torch
    >>> traffic = Traffic()
    >>> _ = traffic.write(traffic.read(torch.ones(2, 3)).sum(0))
    >>> traffic
    Traffic(reads=6, writes=3)
    """

    reads: int = 0
    """From the slow memory."""
    writes: int = 0
    """To the slow memory."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.reads + self.writes

    def read(self, x: Tensor) -> Tensor:
        """``x``, counted."""
        self.reads += x.numel()
        return x

    def write(self, x: Tensor) -> Tensor:
        """``x``, counted."""
        self.writes += x.numel()
        return x


def stored_attention(
    q: Float[Tensor, "*batch q head_dim"],
    k: Float[Tensor, "*batch k head_dim"],
    v: Float[Tensor, "*batch k v_dim"],
    traffic: Traffic,
) -> Float[Tensor, "*batch q v_dim"]:
    """``softmax(q kᵀ / √head_dim) v`` in three steps, each of which writes its result down.

    Dao et al. 2022, algorithm 0: the square of scores goes out and comes back, and so do the
    weights. Without masks, for counting.

    >>> import torch
    >>> traffic, x = Traffic(), torch.ones(8, 2)
    >>> stored_attention(x, x, x, traffic).shape, traffic.total == stored_accesses(8, 2)
    (torch.Size([8, 2]), True)
    """
    read, write = traffic.read, traffic.write
    scores = write(read(q) @ read(k).mT / math.sqrt(q.shape[-1]))
    weights = write(read(scores).softmax(-1))
    return write(read(weights) @ read(v))


def stored_accesses(seq: int, head_dim: int) -> int:
    """Of ``stored_attention`` for one head: ``4 N d + 4 N²``, Θ(N d + N²).

    >>> stored_accesses(1024, 64)
    4456448
    """
    check_at_least(1, seq=seq, head_dim=head_dim)
    return 4 * seq * head_dim + 4 * seq**2


def tile_side(fast: int, head_dim: int) -> int:
    """Queries and keys in a tile, where four blocks of rows fill a fast memory of ``fast`` numbers.

    They are queries, keys, values and outputs (Dao et al. 2022, algorithm 1). Scores come on top;
    from 2 · head_dim queries on, a tile of head_dim keys at most leaves room for them.

    >>> tile_side(16_384, 64)
    64

    Raises:
        ValueError: a memory too small for tiles of one row.
    """
    check_at_least(1, head_dim=head_dim)
    if fast < 4 * head_dim:
        raise ValueError(
            f"a tile of one query and one key needs 4 · head_dim = {4 * head_dim} numbers of fast "
            f"memory, got {fast}"
        )
    return fast // (4 * head_dim)


def flash_accesses(seq: int, head_dim: int, fast: int) -> int:
    """Of ``flash_forward`` for one head that sees all: ``2 N d + N + 8 N² d² / M``, Θ(N² d² / M).

    Queries are read once; outputs and log-sum-exps are written once; keys and values are read
    again for each row of tiles, of which there are N / (M / 4 d). Causal tiles are about half.

    >>> flash_accesses(1024, 64, 16_384)
    2229248

    Raises:
        ValueError: sizes below 1, and as ``tile_side``.
    """
    check_at_least(1, seq=seq)
    tile_side(fast, head_dim)
    return 2 * seq * head_dim + seq + round(8 * seq**2 * head_dim**2 / fast)


def flash_backward_accesses(seq: int, head_dim: int, fast: int) -> int:
    """Of ``flash_backward`` with the same tiles: ``4 N d + N + 24 N² d² / M``.

    For each row of tiles keys and values are read again, and their gradients read and written.

    >>> flash_backward_accesses(1024, 64, 16_384)
    6554624
    """
    check_at_least(1, seq=seq)
    tile_side(fast, head_dim)
    return 4 * seq * head_dim + seq + round(24 * seq**2 * head_dim**2 / fast)


# What one new token reads of its past -------------------------------------------------------------


def native_sparse_tokens(
    seq: int,
    *,
    block: int = 32,
    stride: int = 16,
    selected: int = 16,
    selected_block: int = 64,
    window: int = 512,
) -> int:
    """Tokens' keys and values that Native Sparse Attention reads for one new token after ``seq``.

    One compressed row for each stride, ``selected`` blocks as they are, and a window: at most
    ``(seq − block) / stride + selected · selected_block + window`` (Yuan et al. 2025, section
    5.2; the defaults are theirs). A short text is read whole.

    >>> [native_sparse_tokens(n) for n in (8192, 65_536)]  # full attention reads them all
    [2046, 5630]

    Raises:
        ValueError: sizes below 1.
    """
    sizes = {"block": block, "stride": stride, "selected": selected}
    check_at_least(1, seq=seq, **sizes, selected_block=selected_block, window=window)
    compressed = max(0, seq - block) // stride
    return min(seq, compressed + selected * selected_block + window)


def indexed_numbers(
    seq: int, *, row: int = 576, index_dim: int = 128, top_k: int = 2048
) -> tuple[int, int]:
    """Numbers that DeepSeek Sparse Attention reads for one new token: (by the indexer, of rows).

    A small indexer scores *all* tokens by keys of ``index_dim`` numbers; of the ``top_k`` best
    the whole row of the cache is read, 576 numbers of latent attention (DeepSeek-V3.2). So the
    work still grows with the text, with a smaller factor: row / index_dim is its limit.

    >>> indexed_numbers(131_072), 131_072 * 576  # beside full attention over the same rows
    ((16777216, 1179648), 75497472)

    Raises:
        ValueError: sizes below 1.
    """
    check_at_least(1, seq=seq, row=row, index_dim=index_dim, top_k=top_k)
    return seq * index_dim, min(seq, top_k) * row
