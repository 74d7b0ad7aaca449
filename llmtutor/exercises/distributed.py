"""Chapter 13, distributed: its exercises and the mistakes learners make there."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong

# Exercise 1: the first half of the ring.

Table = list[list[float]]


def _ring_cases() -> Iterator[tuple[Table]]:
    yield ([[1.0, 1.0], [10.0, 10.0]],)
    yield ([[float(10**rank)] * 4 for rank in range(4)],)
    random = np.random.default_rng(0)
    for n in (3, 5):
        yield (random.integers(-9, 10, size=(n, n)).astype(float).tolist(),)


def _hops(table: Table, n_hops: int, direction: int = 1, falling: int = 1) -> Table:
    """``n_hops`` hops, in each of which every rank adds the part that its neighbour sends."""
    n = len(table)
    for hop in range(n_hops):
        before = [row[:] for row in table]
        for rank in range(n):
            source = (rank - direction) % n
            part = (source - direction * falling * hop) % n
            table[rank][part] = before[rank][part] + before[source][part]
    return table


def reduce_scatter(table: Table) -> Table:
    """What each rank holds after the reduce-scatter of a ring; row r is that of rank r.

    >>> reduce_scatter([[1, 1], [10, 10]])
    [[1, 11], [11, 10]]
    """
    return _hops([row[:] for row in table], len(table) - 1)


def _one_hop_too_many(table: Table) -> Table:
    return _hops([row[:] for row in table], len(table))


def _one_hop_too_few(table: Table) -> Table:
    return _hops([row[:] for row in table], len(table) - 2)


def _to_the_left(table: Table) -> Table:
    return _hops([row[:] for row in table], len(table) - 1, direction=-1)


def _always_its_own(table: Table) -> Table:
    return _hops([row[:] for row in table], len(table) - 1, falling=0)


def _all_reduce(table: Table) -> Table:
    total = np.sum(table, axis=0).tolist()
    return [list(total) for _ in table]


# Exercise 2: factors of the loss, for parts of unequal size.

Counts = Sequence[Sequence[int]]


def _count_cases() -> Iterator[tuple[list[list[int]]]]:
    yield ([[30, 10], [20, 40]],)
    yield ([[8, 8], [8, 8]],)
    yield ([[5, 0, 15], [10, 10, 10], [1, 2, 3]],)
    yield ([[7], [21]],)


def factors(n_tokens: Counts) -> list[list[float]]:
    """By what each rank multiplies the *mean* loss of each micro-batch, before backward.

    ``n_tokens[rank][micro]`` counts tokens. Gradients of a rank add up; DDP takes the mean over
    ranks; the result has to be the gradient of the mean over all tokens.

    >>> factors([[30, 10], [20, 40]])
    [[0.6, 0.2], [0.4, 0.8]]
    """
    total = sum(map(sum, n_tokens))
    return [[len(n_tokens) * n / total for n in row] for row in n_tokens]


def _by_micro_batches(n_tokens: Counts) -> list[list[float]]:
    return [[1 / len(row) for _ in row] for row in n_tokens]


def _by_all_parts(n_tokens: Counts) -> list[list[float]]:
    return [[1 / len(row) / len(n_tokens) for _ in row] for row in n_tokens]


def _without_ddp(n_tokens: Counts) -> list[list[float]]:
    total = sum(map(sum, n_tokens))
    return [[n / total for n in row] for row in n_tokens]


def _of_the_rank(n_tokens: Counts) -> list[list[float]]:
    return [[n / sum(row) for n in row] for row in n_tokens]


def _of_a_sum(n_tokens: Counts) -> list[list[float]]:
    total = sum(map(sum, n_tokens))
    return [[len(n_tokens) / total for _ in row] for row in n_tokens]


# Exercise 3: a rank's share of a gated feed-forward part.


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def _share_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int, int]]:
    for seed, (tokens, d_model, d_ff, rank, n) in enumerate(
        [(2, 4, 8, 0, 2), (2, 4, 8, 1, 2), (3, 4, 12, 2, 4), (1, 8, 8, 3, 4)]
    ):
        x = _normal(seed, tokens, d_model)
        gate, up = _normal(seed + 10, d_ff, d_model), _normal(seed + 20, d_ff, d_model)
        yield x, gate, up, _normal(seed + 30, d_model, d_ff), rank, n


def share(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, rank: int, n: int) -> Tensor:
    """What ``rank`` of ``n`` adds to a gated feed-forward part; all shares together are the part.

    Weights are stored (d_out, d_in). Each rank takes a run of neighbouring hidden units.

    >>> one = torch.ones(2, 1)
    >>> share(torch.ones(1, 1), one, one, torch.tensor([[1.0, 3.0]]), 1, 2).item() / 3
    0.7310585975646973
    """
    width = len(gate) // n
    mine = slice(rank * width, (rank + 1) * width)
    return (F.silu(x @ gate[mine].T) * (x @ up[mine].T)) @ down[:, mine].T


def _cut_inputs(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, rank: int, n: int) -> Tensor:
    width = x.shape[1] // n
    mine = slice(rank * width, (rank + 1) * width)
    return (F.silu(x[:, mine] @ gate[:, mine].T) * (x[:, mine] @ up[:, mine].T)) @ down.T


def _not_cut(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, rank: int, n: int) -> Tensor:
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def _divided(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, rank: int, n: int) -> Tensor:
    return _not_cut(x, gate, up, down, rank, n) / n


def _wrong_columns(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, rank: int, n: int) -> Tensor:
    width = len(gate) // n
    mine = slice(rank * width, (rank + 1) * width)
    return (F.silu(x @ gate[mine].T) * (x @ up[mine].T)) @ down[:, rank::n].T


def _gate_on_both(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, rank: int, n: int) -> Tensor:
    width = len(gate) // n
    mine = slice(rank * width, (rank + 1) * width)
    return F.silu((x @ gate[mine].T) * (x @ up[mine].T)) @ down[:, mine].T


EXERCISES = [
    Exercise(
        name="distributed.reduce_scatter",
        cases=_ring_cases,
        reference=reduce_scatter,
        mutation="Your function writes into the table that it was given: copy the rows first.",
        wrong=[
            Wrong(
                _one_hop_too_many,
                "One hop too many: after N hops a part is back where it began, and the rank adds "
                "to its own number what contains it already.",
            ),
            Wrong(
                _one_hop_too_few,
                "One hop too few: a part that has made N − 2 hops has collected N − 1 numbers.",
            ),
            Wrong(
                _to_the_left,
                "Your parts run to the left. A rank sends to the one above it, so what it adds "
                "comes from rank − 1.",
            ),
            Wrong(
                _always_its_own,
                "Each rank sends the part with its own number in every hop. From the second hop "
                "on it must pass on the part that it has just added to.",
            ),
            Wrong(
                _all_reduce,
                "This is the whole all-reduce. After its first half each rank has one finished "
                "part, and sums that are not finished in the others.",
            ),
        ],
    ),
    Exercise(
        name="distributed.factors",
        cases=_count_cases,
        reference=factors,
        wrong=[
            Wrong(
                _by_micro_batches,
                "Each micro-batch has the same say. A token in a short one then counts more than "
                "one in a long one: the bug of this chapter.",
            ),
            Wrong(
                _by_all_parts,
                "Each micro-batch has the same say, and you divide by the ranks although DDP "
                "does so.",
            ),
            Wrong(
                _without_ddp,
                "The shares of all tokens are right for a sum over ranks. DDP takes the mean, so "
                "your gradient is too small by the number of ranks.",
            ),
            Wrong(
                _of_the_rank,
                "You divide by the tokens of the rank. Each rank then has the same say, however "
                "few tokens it has.",
            ),
            Wrong(
                _of_a_sum,
                "This is the factor of a *summed* loss. A mean has been divided by its own tokens "
                "already: multiply by them.",
            ),
        ],
    ),
    Exercise(
        name="distributed.share",
        cases=_share_cases,
        reference=share,
        wrong=[
            Wrong(
                _cut_inputs,
                "You cut what goes into the first matrices. Their results are then sums that are "
                "not finished, and SiLU of a part is not a part of SiLU. Cut their outputs: rows, "
                "as they are stored.",
            ),
            Wrong(
                _not_cut,
                "This is the whole part on each rank: the sum over ranks would be n times as much.",
            ),
            Wrong(
                _divided,
                "Every rank computes everything and takes an n-th of it. The sum is right, and "
                "nothing was saved.",
            ),
            Wrong(
                _wrong_columns,
                "The hidden units of your rank are neighbours, and the columns of `down` are every "
                "n-th one: they belong to other units.",
            ),
            Wrong(
                _gate_on_both,
                "SiLU belongs to the gate alone: silu(gate) · up, not silu(gate · up).",
            ),
        ],
    ),
]
