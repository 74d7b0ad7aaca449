"""Chapter 08, feed-forward: its exercises and the mistakes learners make there."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong
from llmtutor.experiments.units import strongest


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


# Exercise 1: the texts in which a unit is strongest.


def _strongest_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.tensor([[0.5, -3.0, 2.0], [1.0, 0.0, 1.5], [-0.2, 0.1, 0.3]]), 2
    yield torch.tensor([[4.0, -5.0], [3.0, 1.0], [-6.0, 5.5], [0.5, -2.0]]), 3
    yield _draw(6, 9, seed=3), 4


def _largest(values: Tensor, k: int) -> list[tuple[int, int]]:
    best, positions = values.max(dim=1)
    return [(t, int(positions[t])) for t in best.argsort(descending=True)[:k].tolist()]


def _same_text_twice(values: Tensor, k: int) -> list[tuple[int, int]]:
    seq = values.shape[1]
    places = values.abs().flatten().argsort(descending=True)[:k].tolist()
    return [(place // seq, place % seq) for place in places]


def _weakest(values: Tensor, k: int) -> list[tuple[int, int]]:
    best, positions = values.abs().max(dim=1)
    return [(t, int(positions[t])) for t in best.argsort()[:k].tolist()]


def _swapped_pair(values: Tensor, k: int) -> list[tuple[int, int]]:
    return [(position, text) for text, position in strongest(values, k)]


# Exercise 2: which half of a stored matrix is the gate?


def _fused(gate: Tensor, up: Tensor, layout: str) -> Tensor:
    if layout == "interleaved":
        return torch.stack((gate, up), dim=1).flatten(0, 1)
    return torch.cat((gate, up) if layout == "gate first" else (up, gate))


def _unfuse_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    layouts = ("gate first", "up first", "interleaved", "up first")
    for seed, (layout, d_ff) in enumerate(zip(layouts, (3, 4, 2, 6), strict=True)):
        gate, up = _draw(d_ff, 4, seed=50 + seed), _draw(d_ff, 4, seed=60 + seed)
        down, x = _draw(4, d_ff, seed=70 + seed), _draw(3, 4, seed=80 + seed)
        yield _fused(gate, up, layout), down, x, _swiglu(x, gate, up, down)


def _swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def unfuse(fused: Tensor, down: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gate and up of a SwiGLU that are stored as one matrix (2 · d_ff, d_model), in that order.

    It may hold the gate first, up first, or a row of each in turn, the gate's first: only one of
    the three takes x (seq, d_model) to y (seq, d_model).

    >>> one = torch.ones(1, 1)
    >>> gate, up = unfuse(torch.tensor([[3.0], [1.0]]), one, 2 * one, torch.tensor([[10.5696]]))
    >>> gate, up
    (tensor([[1.]]), tensor([[3.]]))
    """
    first, second = fused.chunk(2)
    for gate, up in ((first, second), (second, first), (fused[0::2], fused[1::2])):
        if torch.allclose(_swiglu(x, gate, up, down), y, atol=1e-4):
            return gate, up
    raise ValueError("no order of the rows takes x to y")


def _gate_first(fused: Tensor, down: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    first, second = fused.chunk(2)
    return first, second


def _up_first(fused: Tensor, down: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    first, second = fused.chunk(2)
    return second, first


def _only_halves(fused: Tensor, down: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    first, second = fused.chunk(2)
    fits = torch.allclose(_swiglu(x, first, second, down), y)
    return (first, second) if fits else (second, first)


def _turned_round(fused: Tensor, down: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    gate, up = unfuse(fused, down, x, y)
    return up, gate


# Exercise 3: the backward pass of SwiGLU.

Gradients = tuple[Tensor, Tensor, Tensor]


def _gradient_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    for seed, (seq, d_model, d_ff) in enumerate([(1, 1, 1), (2, 3, 3), (4, 3, 5)]):
        x, upstream = _draw(seq, d_model, seed=seed), _draw(seq, d_model, seed=10 + seed)
        gate, up = _draw(d_ff, d_model, seed=20 + seed), _draw(d_ff, d_model, seed=30 + seed)
        yield x, gate, up, _draw(d_model, d_ff, seed=40 + seed), upstream


def swiglu_gradients(
    x: Tensor, gate: Tensor, up: Tensor, down: Tensor, upstream: Tensor
) -> Gradients:
    """Of the loss by gate, up and down, where ``upstream`` (seq, d_model) is that by the output.

    >>> one = torch.ones(1, 1)
    >>> [round(g.item(), 3) for g in swiglu_gradients(one, 0 * one, 2 * one, 3 * one, one)]
    [3.0, 0.0, 0.0]
    """
    a, value = x @ gate.T, x @ up.T
    sigma = torch.sigmoid(a)
    opened = a * sigma
    by_hidden = upstream @ down  # (seq, d_ff)
    by_a = by_hidden * value * sigma * (1 + a * (1 - sigma))
    return by_a.T @ x, (by_hidden * opened).T @ x, upstream.T @ (opened * value)


Slope = Callable[[Tensor], Tensor]


def _wrong_slope(slope: Slope) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Gradients]:
    """The right gradients but that of the gate, with this for the slope of its activation."""

    def gradients(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, upstream: Tensor) -> Gradients:
        _, by_up, by_down = swiglu_gradients(x, gate, up, down, upstream)
        by_a = upstream @ down * (x @ up.T) * slope(x @ gate.T)
        return by_a.T @ x, by_up, by_down

    return gradients


def _shut_gate(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, upstream: Tensor) -> Gradients:
    by_gate, _, by_down = swiglu_gradients(x, gate, up, down, upstream)
    return by_gate, (upstream @ down).T @ x, by_down


def _only_gate(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, upstream: Tensor) -> Gradients:
    by_gate, by_up, _ = swiglu_gradients(x, gate, up, down, upstream)
    return by_gate, by_up, upstream.T @ F.silu(x @ gate.T)


EXERCISES = [
    Exercise(
        name="feed_forward.strongest",
        cases=_strongest_cases,
        reference=strongest,
        wrong=[
            Wrong(
                _largest,
                "A unit with a gate may be strong and negative. Take the absolute value before you "
                "look for the largest.",
            ),
            Wrong(
                _same_text_twice,
                "The same text comes twice, at two of its positions. Take the strongest position "
                "of each text first, then sort the texts.",
            ),
            Wrong(_weakest, "The order is turned round: `argsort` begins with the smallest."),
            Wrong(
                _swapped_pair,
                "The pairs are (position, text). Rows of `values` are texts: the row comes first.",
            ),
        ],
    ),
    Exercise(
        name="feed_forward.unfuse",
        cases=_unfuse_cases,
        reference=unfuse,
        wrong=[
            Wrong(
                _gate_first,
                "This takes the first half for the gate, whatever x and y say. Compute the layer, "
                "and keep the order whose output is y.",
            ),
            Wrong(
                _up_first,
                "This takes the second half for the gate, whatever x and y say. Compute the layer, "
                "and keep the order whose output is y.",
            ),
            Wrong(
                _only_halves,
                "The two halves are not all: rows may alternate. `fused[0::2]` are the rows of the "
                "gate then.",
            ),
            Wrong(_turned_round, "The right order is found, but returned as (up, gate)."),
        ],
    ),
    Exercise(
        name="feed_forward.swiglu_gradients",
        cases=_gradient_cases,
        reference=swiglu_gradients,
        wrong=[
            Wrong(
                _wrong_slope(torch.sigmoid),
                "σ(a) is only half of SiLU's slope. a σ(a) is a product, so its derivative is "
                "σ(a) + a σ(a) (1 − σ(a)).",
            ),
            Wrong(
                _wrong_slope(F.silu), "The gate's slope is missing: this multiplies by SiLU itself."
            ),
            Wrong(
                _wrong_slope(torch.ones_like),
                "The gradient goes through the gate's activation unchanged. Multiply by its slope "
                "at a, which is 1 nowhere but by chance.",
            ),
            Wrong(
                _shut_gate,
                "The gradient of `up` lacks the opened gate: where the gate is shut, `up` learns "
                "nothing.",
            ),
            Wrong(
                _only_gate,
                "`down` is multiplied by gate · value, and this takes the gate alone for its "
                "gradient.",
            ),
        ],
    ),
]
