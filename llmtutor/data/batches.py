"""Chapter 02, step 7: token ids → batches of inputs and targets, shifted by one.

Training takes random windows, evaluation takes every token once and in order.
"""

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from llmtutor.checks import check_at_least

Ids = np.ndarray | Tensor | Sequence[int]
"""A row of token ids; a memory map is read only where a batch needs it."""


def random_batches(
    ids: Ids, batch_size: int, seq_len: int, *, generator: torch.Generator
) -> Iterator[tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]]:
    """Endless batches of windows, each start drawn uniformly and independently.

    A window is `seq_len + 1` ids: all but the last are inputs, all but the first are targets.
    Two generators in the same state give the same batches.

    >>> generator = torch.Generator().manual_seed(0)
    >>> inputs, targets = next(random_batches(range(100, 110), 2, 3, generator=generator))
    >>> bool((targets == inputs + 1).all())
    True

    Raises `ValueError` if there are fewer than `seq_len + 1` ids.
    """
    array = _row(ids, batch_size, seq_len)
    n_starts = _n_starts(array, seq_len)

    def starts() -> np.ndarray:
        return torch.randint(n_starts, (batch_size, 1), generator=generator).numpy()

    return (_windows(array, starts(), seq_len) for _ in count())


def _n_starts(ids: np.ndarray, seq_len: int) -> int:
    if len(ids) <= seq_len:
        raise ValueError(
            f"expected at least seq_len + 1 = {seq_len + 1} ids for one window, got {len(ids)}; "
            "take a shorter seq_len or more text"
        )
    return len(ids) - seq_len


def _windows(ids: np.ndarray, starts: np.ndarray, seq_len: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the windows that begin at `starts`, a column."""
    windows = torch.from_numpy(ids[starts + np.arange(seq_len + 1)].astype(np.int64))
    return windows[:, :-1].contiguous(), windows[:, 1:].clone()


def batch_at(
    ids: Ids, batch_size: int, seq_len: int, *, seed: int, step: int
) -> tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]:
    """The random batch of one training step, as a pure function of ``(seed, step)``.

    The position in the data *is* the step: nothing else has to be saved to go on after a stop, and
    every process can draw the batch by itself (rank r of n takes rows ``[r::n]``). The starts come
    from a counter-based generator, which turns the key ``seed`` and the counter ``step`` into
    random bits without any state in between: Philox, Salmon et al. (2011).

    >>> inputs, targets = batch_at(range(100, 110), 2, 3, seed=0, step=7)
    >>> bool((targets == inputs + 1).all())
    True

    Raises `ValueError` for fewer than `seq_len + 1` ids, a negative seed or a negative step.
    """
    array = _row(ids, batch_size, seq_len)
    check_at_least(0, seed=seed, step=step)
    # Words 0 and 1 of the counter run inside a step, word 2 holds the step: no two steps meet.
    bits = np.random.Philox(key=seed, counter=[0, 0, step, 0]).random_raw(batch_size)
    starts = (bits % np.uint64(_n_starts(array, seq_len))).astype(np.int64)
    return _windows(array, starts[:, None], seq_len)


def sequential_batches(
    ids: Ids, batch_size: int, seq_len: int
) -> Iterator[tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]]:
    """All ids in order: each one but the first is a target exactly once.

    Windows do not overlap, so a target sees at most `seq_len` ids before it. The last batch of
    whole windows may have fewer rows; what is left after them is one row, shorter than `seq_len`.

    >>> for inputs, targets in sequential_batches([5, 6, 7, 8, 9], batch_size=1, seq_len=3):
    ...     print(inputs.tolist(), targets.tolist())
    [[5, 6, 7]] [[6, 7, 8]]
    [[8]] [[9]]

    Raises `ValueError` if there are fewer than two ids.
    """
    array = _row(ids, batch_size, seq_len)
    if len(array) < 2:
        raise ValueError(f"expected at least 2 ids (an input and a target), got {len(array)}")
    n_whole, rest = divmod(len(array) - 1, seq_len)
    starts = np.arange(n_whole)[:, None] * seq_len
    batches = [(starts[i : i + batch_size], seq_len) for i in range(0, n_whole, batch_size)]
    if rest:
        batches.append((np.array([[n_whole * seq_len]]), rest))
    return (_windows(array, column, length) for column, length in batches)


def shard(ids: Ids, rank: int, world_size: int) -> np.ndarray:
    """The contiguous part of `ids` that belongs to `rank`; no copy is made.

    The parts of all ranks, one after the other, are `ids`; their lengths differ by at most one.

    >>> [shard(range(7), rank, 3).tolist() for rank in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"expected 0 <= rank < world_size, got rank {rank} of {world_size}")
    array = _row(ids)
    bounds = [len(array) * r // world_size for r in (rank, rank + 1)]
    return array[bounds[0] : bounds[1]]


def _row(ids: Ids, batch_size: int = 1, seq_len: int = 1) -> np.ndarray:
    check_at_least(1, batch_size=batch_size, seq_len=seq_len)
    array = ids.numpy(force=True) if isinstance(ids, Tensor) else np.asanyarray(ids)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"expected one row of integer ids, got shape {array.shape} of {array.dtype}"
        )
    return array
