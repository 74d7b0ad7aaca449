"""Chapter 06, rope: its exercises and the mistakes learners make there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong

# Exercise 1: the rotation itself, neighbours paired.


def _rotate_cases() -> Iterator[tuple[Tensor, int, float]]:
    yield torch.tensor([1.0, 0.0], dtype=torch.float64), 1, 10_000.0
    yield torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), 0, 10_000.0
    yield torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), 7, 10_000.0
    yield torch.arange(8, dtype=torch.float64), 3, 100.0


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x[0::2], x[1::2]
    first, second = a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()
    return torch.stack((first, second), dim=-1).flatten()


def _frequencies(dim: int, base: float) -> Tensor:
    return base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


def rotate(x: Tensor, position: int, base: float) -> Tensor:
    """One vector (d,) with each pair (x_2i, x_2i+1) turned by position · base^(−2i/d) radians.

    >>> rotate(torch.tensor([1.0, 0.0], dtype=torch.float64), 1, 10_000.0)
    tensor([0.5403, 0.8415], dtype=torch.float64)
    """
    return _turned(x, position * _frequencies(len(x), base))


def _clockwise(x: Tensor, position: int, base: float) -> Tensor:
    return rotate(x, -position, base)


def _halves(x: Tensor, position: int, base: float) -> Tensor:
    angles = position * _frequencies(len(x), base)
    a, b = x.chunk(2)
    return torch.cat((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()))


def _both_minus(x: Tensor, position: int, base: float) -> Tensor:
    angles = position * _frequencies(len(x), base)
    a, b = x[0::2], x[1::2]
    first, second = a * angles.cos() - b * angles.sin(), a * angles.sin() - b * angles.cos()
    return torch.stack((first, second), dim=-1).flatten()


def _overwritten(x: Tensor, position: int, base: float) -> Tensor:
    angles = position * _frequencies(len(x), base)
    a, b = x[0::2], x[1::2]
    a = a * angles.cos() - b * angles.sin()
    b = a * angles.sin() + b * angles.cos()
    return torch.stack((a, b), dim=-1).flatten()


def _half_exponent(x: Tensor, position: int, base: float) -> Tensor:
    return rotate(x, position, base**0.5)


# Exercise 2: weights from one pairing to the other.


def _weight_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.arange(6.0)[:, None], 1
    yield torch.arange(16.0).reshape(16, 1), 2
    yield torch.arange(48.0).reshape(24, 2), 3


def to_half(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of a query or key projection (n_heads · head_dim, d_in), interleaved → half.

    >>> to_half(torch.arange(4.0)[:, None], 1).flatten()
    tensor([0., 2., 1., 3.])
    """
    pairs = weight.unflatten(0, (n_heads, -1, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def _to_interleaved(weight: Tensor, n_heads: int) -> Tensor:
    return weight.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _one_big_head(weight: Tensor, n_heads: int) -> Tensor:
    return to_half(weight, 1)


def _swapped_within_pairs(weight: Tensor, n_heads: int) -> Tensor:
    return weight.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _unchanged(weight: Tensor, n_heads: int) -> Tensor:
    return weight.clone()


# Exercise 3: the next token, beside keys that were turned before.


def _next_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    generator = torch.Generator().manual_seed(0)
    for d, n, base in ((2, 1, 100.0), (4, 3, 100.0), (8, 6, 10_000.0)):
        query, key, *past = torch.randn(2 + n, d, generator=generator, dtype=torch.float64)
        kept = torch.stack([rotate(k, p, base) for p, k in enumerate(past)])
        yield query, key, kept, base


def next_scores(query: Tensor, key: Tensor, cached: Tensor, base: float) -> Tensor:
    """Scores (n + 1,) of a new token's query with the n cached keys, already turned, and its own.

    >>> one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> next_scores(one, one, one[None], 10_000.0)  # 1 rad apart, and 0
    tensor([0.5403, 1.0000], dtype=torch.float64)
    """
    n = len(cached)
    keys = torch.cat((cached, rotate(key, n, base)[None]))
    return keys @ rotate(query, n, base)


def _from_zero(query: Tensor, key: Tensor, cached: Tensor, base: float) -> Tensor:
    return torch.cat((cached, key[None])) @ query


def _turned_again(query: Tensor, key: Tensor, cached: Tensor, base: float) -> Tensor:
    keys = torch.cat((cached, key[None]))
    keys = torch.stack([rotate(k, p, base) for p, k in enumerate(keys)])
    return keys @ rotate(query, len(cached), base)


def _own_key_unturned(query: Tensor, key: Tensor, cached: Tensor, base: float) -> Tensor:
    return torch.cat((cached, key[None])) @ rotate(query, len(cached), base)


def _one_too_far(query: Tensor, key: Tensor, cached: Tensor, base: float) -> Tensor:
    n = len(cached) + 1
    return torch.cat((cached, rotate(key, n, base)[None])) @ rotate(query, n, base)


EXERCISES = [
    Exercise(
        name="rope.rotate",
        cases=_rotate_cases,
        reference=rotate,
        wrong=[
            Wrong(
                _clockwise,
                "The pairs turn clockwise: the signs of the sines are exchanged. With queries and "
                "keys turned alike a new model would not mind; trained weights do.",
            ),
            Wrong(
                _halves,
                "Component i is paired with i + d/2 here, the 'half' pairing. This exercise asks "
                "for neighbours, 2i with 2i + 1.",
            ),
            Wrong(
                _both_minus,
                "The second line has a minus where a plus belongs: a sin + b cos. As it stands "
                "the pair is mirrored too, and scores are no function of the distance.",
            ),
            Wrong(
                _overwritten,
                "The second line uses a after it was replaced by the first. Both need the old a.",
            ),
            Wrong(
                _half_exponent,
                "The exponent is i/d where 2i/d was meant, so the later pairs turn too fast.",
            ),
        ],
    ),
    Exercise(
        name="rope.to_half",
        cases=_weight_cases,
        reference=to_half,
        wrong=[
            Wrong(
                _to_interleaved,
                "This is the way back, from half to interleaved. Row 1 of a head, the partner of "
                "row 0, must move to the middle of the head.",
            ),
            Wrong(
                _one_big_head,
                "The rows were rearranged across all heads at once, so heads exchange rows. Each "
                "head is rearranged by itself.",
            ),
            Wrong(
                _swapped_within_pairs,
                "The two rows of each pair changed places and stayed neighbours. Partners must "
                "come to lie half a head apart.",
            ),
            Wrong(
                _unchanged,
                "Nothing moved. The shapes agree either way, which is why nobody notices; the "
                "pairs do not.",
            ),
        ],
    ),
    Exercise(
        name="rope.next_scores",
        cases=_next_cases,
        reference=next_scores,
        wrong=[
            Wrong(
                _from_zero,
                "The new token is treated as if it stood at position 0. Its position is the number "
                "of keys in the cache; its own score comes out right all the same, which hides it.",
            ),
            Wrong(
                _turned_again,
                "The cached keys are turned a second time. They were turned when they came in, "
                "and stay as they are.",
            ),
            Wrong(
                _own_key_unturned,
                "The query is turned and the token's own key is not, so a token at distance 0 from "
                "itself looks as if it stood far away.",
            ),
            Wrong(
                _one_too_far,
                "Positions begin at 0, so n cached keys stand at 0 to n − 1 and the new token at "
                "n, not n + 1.",
            ),
        ],
    ),
]
