"""Chapter 05, positions: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong

# Exercise 1: the table of sinusoidal positions.


def _table_cases() -> Iterator[tuple[int, int, float]]:
    yield 3, 2, 10_000.0
    yield 5, 6, 10_000.0
    yield 4, 8, 100.0


def _angles(seq: int, d_model: int, base: float) -> Tensor:
    frequencies = base ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.arange(seq, dtype=torch.float64)[:, None] * frequencies


def _woven(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack((first, second), dim=-1).flatten(-2)


def sinusoidal_table(seq: int, d_model: int, base: float) -> Tensor:
    """Table (seq, d_model): sin(p ω_i) in column 2i, cos(p ω_i) in 2i + 1, ω_i = base^(−2i/d).

    >>> sinusoidal_table(2, 2, 10_000.0)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]], dtype=torch.float64)
    """
    angles = _angles(seq, d_model, base)
    return _woven(angles.sin(), angles.cos())


def _cosine_first(seq: int, d_model: int, base: float) -> Tensor:
    angles = _angles(seq, d_model, base)
    return _woven(angles.cos(), angles.sin())


def _halves(seq: int, d_model: int, base: float) -> Tensor:
    angles = _angles(seq, d_model, base)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def _half_exponent(seq: int, d_model: int, base: float) -> Tensor:
    angles = _angles(seq, d_model, math.sqrt(base))
    return _woven(angles.sin(), angles.cos())


def _count_from_one(seq: int, d_model: int, base: float) -> Tensor:
    return sinusoidal_table(seq + 1, d_model, base)[1:]


def _own_frequency_each(seq: int, d_model: int, base: float) -> Tensor:
    frequencies = base ** (-torch.arange(d_model, dtype=torch.float64) / d_model)
    angles = torch.arange(seq, dtype=torch.float64)[:, None] * frequencies
    return _woven(angles[:, ::2].sin(), angles[:, 1::2].cos())


# Exercise 2: the bias of ALiBi.


def _alibi_cases() -> Iterator[tuple[int, int]]:
    yield 1, 3
    yield 2, 4
    yield 8, 5


def _slopes(n_heads: int) -> Tensor:
    return 2.0 ** (-8 * torch.arange(1, n_heads + 1, dtype=torch.float64) / n_heads)


def _distance(seq: int) -> Tensor:
    positions = torch.arange(seq)
    return (positions[:, None] - positions).clamp(min=0)


def alibi_bias(n_heads: int, seq: int) -> Tensor:
    """Bias (n_heads, seq, seq), −slope · (i − j) for j ≤ i and 0 for keys to come.

    >>> alibi_bias(1, 2)
    tensor([[[ 0.0000,  0.0000],
             [-0.0039,  0.0000]]], dtype=torch.float64)
    """
    return -_slopes(n_heads)[:, None, None] * _distance(seq) + 0.0


def _rewards_distance(n_heads: int, seq: int) -> Tensor:
    return -alibi_bias(n_heads, seq)


def _head_zero_is_flat(n_heads: int, seq: int) -> Tensor:
    slopes = 2.0 ** (-8 * torch.arange(n_heads, dtype=torch.float64) / n_heads)
    return -slopes[:, None, None] * _distance(seq) + 0.0


def _reversed_heads(n_heads: int, seq: int) -> Tensor:
    return alibi_bias(n_heads, seq).flip(0)


def _steps_of_one(n_heads: int, seq: int) -> Tensor:
    slopes = 2.0 ** -torch.arange(1, n_heads + 1, dtype=torch.float64)
    return -slopes[:, None, None] * _distance(seq) + 0.0


def _counts_keys(n_heads: int, seq: int) -> Tensor:
    return -_slopes(n_heads)[:, None, None] * torch.arange(seq).expand(seq, seq).tril() + 0.0


# Exercise 3: the buckets of T5, one direction.


def _bucket_cases() -> Iterator[tuple[int, int, int]]:
    for distance in (0, 1, 7, 8, 9, 11, 14, 20, 33, 63, 64, 500):
        yield distance, 16, 64
    yield 40, 32, 128


def t5_bucket(distance: int, n_buckets: int, max_distance: int) -> int:
    """Bucket of a key ``distance`` ≥ 0 tokens back: one each, then by the logarithm, then the last.

    >>> [t5_bucket(d, n_buckets=8, max_distance=16) for d in (0, 3, 4, 6, 8, 16, 99)]
    [0, 3, 4, 5, 6, 7, 7]
    """
    exact = n_buckets // 2
    if distance < exact:
        return distance
    return min(exact + _octaves(distance, exact, n_buckets, max_distance), n_buckets - 1)


def _octaves(distance: int, exact: int, n_buckets: int, max_distance: int) -> int:
    share = math.log(distance / exact) / math.log(max_distance / exact)
    return math.floor(share * (n_buckets - exact) + 1e-9)


def _no_offset(distance: int, n_buckets: int, max_distance: int) -> int:
    exact = n_buckets // 2
    if distance < exact:
        return distance
    return min(_octaves(distance, exact, n_buckets, max_distance), n_buckets - 1)


def _no_last_bucket(distance: int, n_buckets: int, max_distance: int) -> int:
    exact = n_buckets // 2
    if distance < exact:
        return distance
    return exact + _octaves(distance, exact, n_buckets, max_distance)


def _clipped_distance(distance: int, n_buckets: int, max_distance: int) -> int:
    return min(distance, n_buckets - 1)


def _rounded(distance: int, n_buckets: int, max_distance: int) -> int:
    exact = n_buckets // 2
    if distance < exact:
        return distance
    share = math.log(distance / exact) / math.log(max_distance / exact)
    return min(exact + round(share * (n_buckets - exact)), n_buckets - 1)


def _even_far_buckets(distance: int, n_buckets: int, max_distance: int) -> int:
    exact = n_buckets // 2
    if distance < exact:
        return distance
    share = (distance - exact) / (max_distance - exact)
    return min(exact + math.floor(share * (n_buckets - exact)), n_buckets - 1)


EXERCISES = [
    Exercise(
        name="positions.sinusoidal_table",
        cases=_table_cases,
        reference=sinusoidal_table,
        wrong=[
            Wrong(
                _cosine_first,
                "Sine and cosine have changed places: the sine stands in the even columns, so "
                "that position 0 begins 0, 1, 0, 1.",
            ),
            Wrong(
                _halves,
                "All sines stand first and all cosines after them. Some code does so, and a model "
                "could learn with it, but the table asked for weaves them: sin, cos, sin, cos.",
            ),
            Wrong(
                _half_exponent,
                "The exponent is i/d where 2i/d was meant: your slowest pair is only about the "
                "square root of base slower than the fastest.",
            ),
            Wrong(
                _count_from_one,
                "Your first row is position 1. Positions count from 0, whose row is 0, 1, 0, 1 ….",
            ),
            Wrong(
                _own_frequency_each,
                "Sine and cosine of a pair turn at different speeds here, so the pair is no point "
                "on a circle and a shift is no rotation. Both take ω_i.",
            ),
        ],
    ),
    Exercise(
        name="positions.alibi_bias",
        cases=_alibi_cases,
        reference=alibi_bias,
        wrong=[
            Wrong(
                _rewards_distance,
                "The sign is turned round: far keys gain. The bias is subtracted, so that near "
                "keys are preferred.",
            ),
            Wrong(
                _head_zero_is_flat,
                "The exponents begin at 0, so the first head has slope 1. Heads count from 1 in "
                "the formula: the first slope is 2 to the −8/n and the last one 2 to the −8.",
            ),
            Wrong(
                _reversed_heads,
                "Right slopes in the wrong order: the first head is the steepest.",
            ),
            Wrong(
                _steps_of_one,
                "The slopes 1/2, 1/4, 1/8 … belong to 8 heads only. For n heads the exponents go "
                "in steps of 8/n, so that the last is always 8.",
            ),
            Wrong(
                _counts_keys,
                "This multiplies the slope with the key's own position j. What counts is how far "
                "back it lies, i − j.",
            ),
        ],
    ),
    Exercise(
        name="positions.t5_bucket",
        cases=_bucket_cases,
        reference=t5_bucket,
        wrong=[
            Wrong(
                _no_offset,
                "The logarithmic buckets start again at 0 and fall on top of the exact ones. Add "
                "the number of exact buckets.",
            ),
            Wrong(
                _no_last_bucket,
                "Distances from max_distance on run out of the table. They share the last bucket, "
                "n_buckets − 1.",
            ),
            Wrong(
                _clipped_distance,
                "This gives every distance a bucket of its own until there are none left, which "
                "is the clipping of Shaw et al. T5 spends only half of the buckets that way.",
            ),
            Wrong(
                _rounded,
                "The logarithm is rounded to the nearest bucket. It is rounded down: a bucket "
                "begins at its edge.",
            ),
            Wrong(
                _even_far_buckets,
                "The far buckets are equally wide here. Their width grows with the distance, so "
                "take logarithms of distance / exact and of max_distance / exact.",
            ),
        ],
    ),
]
