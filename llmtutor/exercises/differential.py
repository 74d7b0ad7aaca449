"""Chapter 17, differential: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong
from llmtutor.layers.attention.differential import lambda_init
from llmtutor.layers.basic import softmax
from llmtutor.layers.norms import rms_norm


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


# Exercise 1: the difference of two maps.


def _score_cases() -> Iterator[tuple[Tensor, Tensor, float]]:
    facts = torch.tensor([[0.0, 1.0, 0.0, 2.0]], dtype=torch.float64)
    common = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    yield facts, common, 0.5
    yield _normal(0, 3, 4), _normal(1, 3, 4), 0.8
    yield _normal(2, 2, 2, 5), _normal(3, 2, 2, 5), 0.0
    yield 30 * _normal(4, 2, 6), 30 * _normal(5, 2, 6), 1.2


def difference_of_maps(first: Tensor, second: Tensor, lam: float) -> Tensor:
    """Differential weights (…, keys) of scaled scores (…, keys) of two maps.

    >>> difference_of_maps(torch.zeros(1, 2), torch.zeros(1, 2), 0.5)
    tensor([[0.2500, 0.2500]])
    """
    return softmax(first) - lam * softmax(second)


def _of_the_scores(first: Tensor, second: Tensor, lam: float) -> Tensor:
    return softmax(first - lam * second)


def _clipped(first: Tensor, second: Tensor, lam: float) -> Tensor:
    return (softmax(first) - lam * softmax(second)).clamp(min=0)


def _mixed(first: Tensor, second: Tensor, lam: float) -> Tensor:
    return (1 - lam) * softmax(first) + lam * softmax(second)


def _summing_to_one(first: Tensor, second: Tensor, lam: float) -> Tensor:
    left = softmax(first) - lam * softmax(second)
    return left / left.sum(-1, keepdim=True)


def _turned_round(first: Tensor, second: Tensor, lam: float) -> Tensor:
    return lam * softmax(first) - softmax(second)


# Exercise 2: λ from four vectors and a layer.


def _lambda_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    zero = torch.zeros(4, dtype=torch.float64)
    for layer in (0, 1, 5):
        yield zero, zero, zero, zero, layer
    for seed, layer in ((10, 0), (20, 3), (30, 30)):
        q1, k1, q2, k2 = (0.5 * _normal(seed + i, 4) for i in range(4))
        yield q1, k1, q2, k2, layer


def lambda_of(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, layer: int) -> float:
    """λ of a layer, counted from 0, by equations 2 and 3.

    >>> zero = torch.zeros(3)
    >>> round(lambda_of(zero, zero, zero, zero, 0), 3)
    0.2
    """
    return math.exp(float(q1 @ k1)) - math.exp(float(q2 @ k2)) + lambda_init(layer)


def _from_one(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, layer: int) -> float:
    start = 0.8 - 0.6 * math.exp(-0.3 * (layer - 1))
    return math.exp(float(q1 @ k1)) - math.exp(float(q2 @ k2)) + start


def _no_exponentials(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, layer: int) -> float:
    return float(q1 @ k1) - float(q2 @ k2) + lambda_init(layer)


def _exponential_of_all(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, layer: int) -> float:
    return math.exp(float(q1 @ k1) - float(q2 @ k2)) + lambda_init(layer)


def _always_the_start(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, layer: int) -> float:
    return lambda_init(layer)


def _no_depth(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, layer: int) -> float:
    return math.exp(float(q1 @ k1)) - math.exp(float(q2 @ k2)) + 0.8


# Exercise 3: what leaves a head.


def _head_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, float, float]]:
    for seed, lam, start in ((40, 0.3, 0.2), (50, 0.75, 0.8), (60, 0.5, 0.36)):
        first, second = (softmax(_normal(seed + i, 2, 3, 5)) for i in range(2))
        yield first, second, _normal(seed + 2, 2, 5, 6), lam, start


def head_output(first: Tensor, second: Tensor, v: Tensor, lam: float, start: float) -> Tensor:
    """A head's part of the output (…, q, v_dim) from two maps (…, q, k) and values (…, k, v_dim).

    ``start`` is the λ of the start.
    """
    return _scaled(_normed((first - lam * second) @ v), start)


def _normed(x: Tensor) -> Tensor:
    return rms_norm(x, torch.ones(x.shape[-1], dtype=x.dtype))


def _scaled(x: Tensor, start: float) -> Tensor:
    return (1 - start) * x


def _factor_first(first: Tensor, second: Tensor, v: Tensor, lam: float, start: float) -> Tensor:
    return _normed(_scaled((first - lam * second) @ v, start))


def _factor_of_now(first: Tensor, second: Tensor, v: Tensor, lam: float, start: float) -> Tensor:
    return _scaled(_normed((first - lam * second) @ v), lam)


def _norm_of_maps(first: Tensor, second: Tensor, v: Tensor, lam: float, start: float) -> Tensor:
    return _scaled(_normed(first - lam * second) @ v, start)


def _norm_over_positions(
    first: Tensor, second: Tensor, v: Tensor, lam: float, start: float
) -> Tensor:
    x = (first - lam * second) @ v
    return _scaled(x / (x.square().mean((-2, -1), keepdim=True) + 1e-5).sqrt(), start)


def _no_norm(first: Tensor, second: Tensor, v: Tensor, lam: float, start: float) -> Tensor:
    return _scaled((first - lam * second) @ v, start)


EXERCISES = [
    Exercise(
        name="differential.difference_of_maps",
        cases=_score_cases,
        reference=difference_of_maps,
        properties=[
            Property(
                "every row adds up to 1 − λ",
                lambda weights, first, second, lam: bool(
                    torch.allclose(weights.sum(-1), torch.full_like(weights.sum(-1), 1 - lam))
                ),
            ),
        ],
        wrong=[
            Wrong(
                _of_the_scores,
                "The scores are subtracted, and one softmax follows. Its weights are all above 0 "
                "and add up to 1 again; the difference has to come after two softmaxes.",
            ),
            Wrong(
                _clipped,
                "Negative weights are cut off. They are part of the idea: a token that map 2 sees "
                "more than map 1 is taken away.",
            ),
            Wrong(
                _mixed,
                "This mixes the maps. A mean of two maps is a map like any other, in which nothing "
                "cancels.",
            ),
            Wrong(
                _summing_to_one,
                "The rows were made to add up to 1 again. The formula leaves them at 1 − λ; the "
                "size is the business of the norm that comes later.",
            ),
            Wrong(
                _turned_round,
                "λ stands in front of the first map. It weighs the second, the one that is "
                "subtracted.",
            ),
        ],
    ),
    Exercise(
        name="differential.lambda_of",
        cases=_lambda_cases,
        reference=lambda_of,
        wrong=[
            Wrong(
                _from_one,
                "The paper counts layers from 1 and writes l − 1. Counted from 0, the number of "
                "the layer is that already.",
            ),
            Wrong(
                _no_exponentials,
                "The dot products stand there without their exponentials. With vectors near 0 both "
                "exponentials are near 1, and they cancel.",
            ),
            Wrong(
                _exponential_of_all,
                "The exponential of the difference is about 1 at the start, so λ would start a "
                "whole 1 too high. Take the difference of two exponentials.",
            ),
            Wrong(
                _always_the_start,
                "This is where λ starts. It is learned: the four vectors move it.",
            ),
            Wrong(
                _no_depth,
                "0.8 is where λ starts in the deepest layers. Near the input it starts at 0.2.",
            ),
        ],
    ),
    Exercise(
        name="differential.head_output",
        cases=_head_cases,
        reference=head_output,
        wrong=[
            Wrong(
                _factor_first,
                "The factor comes before the norm, which divides it out again. Multiply what the "
                "norm gave.",
            ),
            Wrong(
                _factor_of_now,
                "The factor is 1 less the λ of the start, a constant. With the λ of now the size "
                "of the output would follow what is learned.",
            ),
            Wrong(
                _norm_of_maps,
                "The weights were normalised. The norm is over the v_dim numbers that a head "
                "brings out, after the values.",
            ),
            Wrong(
                _norm_over_positions,
                "One size for all positions: what comes later would change what came before. Each "
                "position is normalised by itself, over its last axis.",
            ),
            Wrong(
                _no_norm,
                "The norm is missing. Without it a head becomes smaller as λ grows.",
            ),
        ],
    ),
]
