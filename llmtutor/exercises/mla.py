"""Chapter 15, mla: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong
from llmtutor.layers.basic import softmax


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


# Exercise 1: what the cache costs.


def _cache_cases() -> Iterator[tuple[int, int, int, int, int, int]]:
    yield 1, 2, 4, 2, 1, 4
    yield 60, 128, 512, 64, 4096, 2
    yield 27, 16, 512, 64, 1000, 2
    yield 2, 8, 28, 4, 64, 4


def cache_bytes(
    n_layers: int, n_heads: int, kv_rank: int, rope_dim: int, seq: int, size: int
) -> int:
    """Bytes that latent attention keeps of ``seq`` past tokens; a number takes ``size`` bytes.

    >>> cache_bytes(1, 2, 4, 2, 1, 4)  # a latent of 4 and a key of 2, 4 bytes each
    24
    """
    return n_layers * (kv_rank + rope_dim) * seq * size


def _twice(n_layers: int, n_heads: int, kv_rank: int, rope_dim: int, seq: int, size: int) -> int:
    return 2 * n_layers * (kv_rank + rope_dim) * seq * size


def _for_every_head(
    n_layers: int, n_heads: int, kv_rank: int, rope_dim: int, seq: int, size: int
) -> int:
    return n_layers * (kv_rank + n_heads * rope_dim) * seq * size


def _latent_alone(
    n_layers: int, n_heads: int, kv_rank: int, rope_dim: int, seq: int, size: int
) -> int:
    return n_layers * kv_rank * seq * size


def _one_layer(
    n_layers: int, n_heads: int, kv_rank: int, rope_dim: int, seq: int, size: int
) -> int:
    return (kv_rank + rope_dim) * seq * size


# Exercise 2: the best product of two narrow matrices.


def _rank_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64), 1
    yield _normal(10, 6, 4), 2
    yield _normal(11, 5, 7), 3
    yield _normal(12, 6, 2) @ _normal(13, 2, 5), 2


def low_rank(weight: Tensor, rank: int) -> Tensor:
    """The matrix of that rank which is nearest to ``weight`` (out, in), by its sum of squares.

    >>> low_rank(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1).round() + 0.0
    tensor([[3., 0.],
            [0., 0.]])
    """
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]


def _smallest(weight: Tensor, rank: int) -> Tensor:
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, -rank:] * s[-rank:] @ vt[-rank:]


def _sizes_forgotten(weight: Tensor, rank: int) -> Tensor:
    u, _, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] @ vt[:rank]


def _columns_of_v(weight: Tensor, rank: int) -> Tensor:
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt.T[:rank]


def _first_rows(weight: Tensor, rank: int) -> Tensor:
    kept = torch.zeros_like(weight)
    kept[:rank] = weight[:rank]
    return kept


# Exercise 3: the query that meets the latents.


def _absorb_cases() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 0.0], [3.0, 1.0]]])
    yield _normal(20, 3, 4), _normal(21, 3, 4, 4)
    yield _normal(22, 2, 5), _normal(23, 2, 5, 3)


def absorbed_query(q: Tensor, key_up: Tensor) -> Tensor:
    """Queries (heads, nope) → (heads, kv_rank), so that no key has to be made.

    ``key_up`` (heads, nope, kv_rank) makes keys of latents. For every latent c and head h,
    ``result[h] @ c`` is ``q[h] @ (key_up[h] @ c)``.

    >>> absorbed_query(torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 0.0], [3.0, 1.0]]]))
    tensor([[7., 2.]])
    """
    return torch.einsum("hn,hnr->hr", q, key_up)


def _not_transposed(q: Tensor, key_up: Tensor) -> Tensor:
    square = key_up[:, : key_up.shape[2], : key_up.shape[1]]
    return (square @ q[:, : square.shape[2], None])[..., 0]


def _summed_over_heads(q: Tensor, key_up: Tensor) -> Tensor:
    return q @ key_up.sum(0)


def _first_head(q: Tensor, key_up: Tensor) -> Tensor:
    return q @ key_up[0]


def _inverted(q: Tensor, key_up: Tensor) -> Tensor:
    return (torch.linalg.pinv(key_up) @ q[..., None])[..., 0]


# Exercise 4: one new token.


def _step_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    for seed, heads, nope, rope, rank, v, seq in (
        (30, 1, 2, 2, 2, 2, 3),
        (40, 3, 4, 2, 5, 3, 4),
        (50, 2, 3, 4, 4, 6, 6),
    ):
        yield (
            _normal(seed, heads, nope + rope),
            _normal(seed + 1, seq, rank + rope),
            _normal(seed + 2, heads, nope, rank),
            _normal(seed + 3, heads, v, rank),
        )


def _step(q: Tensor, rows: Tensor, key_up: Tensor, value_up: Tensor, scale: float) -> Tensor:
    nope, rank = key_up.shape[1:]
    wide = torch.cat((absorbed_query(q[:, :nope], key_up), q[:, nope:]), dim=1)
    mixed = softmax(wide @ rows.T * scale) @ rows[:, :rank]
    return torch.einsum("hr,hvr->hv", mixed, value_up)


def step(q: Tensor, rows: Tensor, key_up: Tensor, value_up: Tensor) -> Tensor:
    """What the query of one new token receives, (heads, v), through the absorbed path.

    ``q`` (heads, nope + rope) is turned already; ``rows`` (seq, kv_rank + rope) is the cache, each
    a latent and then the shared key, the new token's own among them; ``key_up`` is (heads, nope,
    kv_rank), ``value_up`` (heads, v, kv_rank).
    """
    return _step(q, rows, key_up, value_up, q.shape[1] ** -0.5)


def _scaled_by_the_latent(q: Tensor, rows: Tensor, key_up: Tensor, value_up: Tensor) -> Tensor:
    return _step(q, rows, key_up, value_up, rows.shape[1] ** -0.5)


def _scaled_by_the_plain_part(q: Tensor, rows: Tensor, key_up: Tensor, value_up: Tensor) -> Tensor:
    return _step(q, rows, key_up, value_up, key_up.shape[1] ** -0.5)


def _without_position(q: Tensor, rows: Tensor, key_up: Tensor, value_up: Tensor) -> Tensor:
    nope, rank = key_up.shape[1:]
    scores = absorbed_query(q[:, :nope], key_up) @ rows[:, :rank].T / math.sqrt(q.shape[1])
    return torch.einsum("hr,hvr->hv", softmax(scores) @ rows[:, :rank], value_up)


def _key_first(q: Tensor, rows: Tensor, key_up: Tensor, value_up: Tensor) -> Tensor:
    turned = q.shape[1] - key_up.shape[1]
    return step(q, torch.roll(rows, -turned, dims=1), key_up, value_up)


EXERCISES = [
    Exercise(
        name="mla.cache_bytes",
        cases=_cache_cases,
        reference=cache_bytes,
        wrong=[
            Wrong(
                _twice,
                "The factor 2 for keys and values is gone: both are made from the one latent.",
            ),
            Wrong(
                _for_every_head,
                "This counts a turned key for each head. There is one for all of them.",
            ),
            Wrong(
                _latent_alone,
                "The turned key is missing. It cannot be made from the latent, so it is kept too.",
            ),
            Wrong(
                _one_layer,
                "This is one layer. Each has latents of its own.",
            ),
        ],
    ),
    Exercise(
        name="mla.low_rank",
        cases=_rank_cases,
        reference=low_rank,
        properties=[
            Property(
                "a matrix of the same shape comes out",
                lambda got, weight, rank: tuple(got.shape) == tuple(weight.shape),
            ),
        ],
        wrong=[
            Wrong(
                _smallest,
                "The smallest singular values are kept. They matter least; keep the first, which "
                "are the largest.",
            ),
            Wrong(
                _sizes_forgotten,
                "The singular values are missing: each direction comes back with length 1.",
            ),
            Wrong(
                _first_rows,
                "The first rows are kept as they are. That has the rank, but the nearest matrix "
                "shares its loss among all rows.",
            ),
            Wrong(
                _columns_of_v,
                "`torch.linalg.svd` returns Vᵀ, whose *rows* are the directions: take `vt[:rank]`, "
                "without another transpose.",
            ),
        ],
    ),
    Exercise(
        name="mla.absorbed_query",
        cases=_absorb_cases,
        reference=absorbed_query,
        properties=[
            Property(
                "a row of kv_rank numbers for each head comes out",
                lambda got, q, key_up: tuple(got.shape) == (len(q), key_up.shape[2]),
            ),
        ],
        wrong=[
            Wrong(
                _not_transposed,
                "key_up itself is applied to the query. From q · (U c) = (Uᵀ q) · c it is the "
                "transpose that moves to the query.",
            ),
            Wrong(
                _summed_over_heads,
                "The matrices of all heads are added up. Each head absorbs its own.",
            ),
            Wrong(
                _first_head,
                "All heads use the first one's matrix; each has its own.",
            ),
            Wrong(
                _inverted,
                "The matrix is inverted. Nothing is undone here: the transpose gives the same "
                "product.",
            ),
        ],
    ),
    Exercise(
        name="mla.step",
        cases=_step_cases,
        reference=step,
        wrong=[
            Wrong(
                _scaled_by_the_latent,
                "The scores are divided by the root of the width that meets in the cache, "
                "kv_rank + rope. They are the same numbers as before absorbing, so they are still "
                "divided by √(nope + rope).",
            ),
            Wrong(
                _scaled_by_the_plain_part,
                "The scores are divided by √nope. A head's query has nope + rope components.",
            ),
            Wrong(
                _without_position,
                "Only the latents meet the query: the turned key is forgotten, so the scores know "
                "no distances.",
            ),
            Wrong(
                _key_first,
                "The two parts of a row are mixed up: the latent comes first, the turned key last.",
            ),
        ],
    ),
]
