"""Chapter 08, feed-forward: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong
from llmtutor.layers.ffn import swiglu_width

# Exercise 1: the exact GELU.


def _gelu_cases() -> Iterator[tuple[Tensor]]:
    yield (torch.tensor([0.0, 1.0, -1.0]),)
    yield (torch.linspace(-6, 6, 25, dtype=torch.float64),)
    yield (torch.tensor(np.random.default_rng(0).normal(size=(3, 4))),)


def gelu(x: Tensor) -> Tensor:
    """``x Φ(x)`` with Φ the distribution function of the standard normal, any shape.

    >>> gelu(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.0000,  0.8413])
    """
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _probability_alone(x: Tensor) -> Tensor:
    return (1 + torch.erf(x / math.sqrt(2))) / 2


def _without_root(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x)) / 2


def _density(x: Tensor) -> Tensor:
    return x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


# Exercise 2: SwiGLU from its three matrices.


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def _swiglu_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    for seed, (seq, d_model, d_ff) in enumerate([(2, 3, 3), (4, 2, 2), (1, 4, 4), (3, 4, 6)]):
        x = _draw(seq, d_model, seed=10 + seed)
        gate, up = (_draw(d_ff, d_model, seed=20 + 2 * seed + i) for i in range(2))
        yield x, gate, up, _draw(d_model, d_ff, seed=40 + seed)


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """SwiGLU without biases: x (seq, d_model), gate and up (d_ff, d_model), down (d_model, d_ff).

    >>> one = torch.ones(1, 1)
    >>> swiglu(2 * one, one, 3 * one, one)  # silu(2) · 6
    tensor([[10.5696]])
    """
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def _chained(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    a = x @ gate.T
    return (F.silu(a) * (a @ up.T)) @ down.T


def _other_gate(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return swiglu(x, up, gate, down)


def _sigmoid_gate(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (torch.sigmoid(x @ gate.T) * (x @ up.T)) @ down.T


def _added(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate.T) + x @ up.T) @ down.T


def _activated_late(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.silu((x @ gate.T) * (x @ up.T)) @ down.T


# Exercise 3: the width of a gated layer.


def _width_cases() -> Iterator[tuple[int, int]]:
    yield 96, 64
    yield 4096, 256
    yield 512, 64
    yield 100, 8
    yield 30, 32


def gated_width(d_model: int, multiple_of: int) -> int:
    """The whole part of 8/3 ``d_model``, rounded up to a multiple of ``multiple_of``.

    >>> gated_width(4096, 256)
    11008
    """
    return swiglu_width(d_model, multiple_of)


def _down(d_model: int, multiple_of: int) -> int:
    return 8 * d_model // 3 // multiple_of * multiple_of


def _nearest(d_model: int, multiple_of: int) -> int:
    return round(8 * d_model / 3 / multiple_of) * multiple_of


def _always_one_more(d_model: int, multiple_of: int) -> int:
    return (8 * d_model // 3 // multiple_of + 1) * multiple_of


def _not_narrowed(d_model: int, multiple_of: int) -> int:
    return math.ceil(4 * d_model / multiple_of) * multiple_of


def _whole_division(d_model: int, multiple_of: int) -> int:
    return math.ceil(8 // 3 * d_model / multiple_of) * multiple_of


EXERCISES = [
    Exercise(
        name="feed_forward.gelu",
        cases=_gelu_cases,
        reference=gelu,
        wrong=[
            Wrong(
                _tanh,
                "This is the approximation with tanh, the one GPT-2 uses. It is off by up to "
                "0.0005; the exact function needs torch.erf.",
            ),
            Wrong(
                _silu,
                "This is SiLU, x times the logistic function. GELU multiplies x by the "
                "distribution function of the normal, which closes faster.",
            ),
            Wrong(
                _probability_alone,
                "This is Φ(x) alone, a number between 0 and 1. GELU multiplies it by x.",
            ),
            Wrong(
                _without_root,
                "The argument of erf is not divided by the square root of 2, so this Φ belongs to "
                "a normal of variance 1/2.",
            ),
            Wrong(
                _density,
                "This multiplies x by the density of the normal, the bell. Φ is its integral from "
                "minus infinity to x.",
            ),
        ],
    ),
    Exercise(
        name="feed_forward.swiglu",
        cases=_swiglu_cases,
        reference=swiglu,
        wrong=[
            Wrong(
                _chained,
                "The value is computed from the gate's numbers and not from x: the two projections "
                "are chained. Both must read x.",
            ),
            Wrong(
                _other_gate,
                "The roles are exchanged: SiLU is applied to x @ up.T. It belongs to the gate; a "
                "trained layer's weights would give other outputs.",
            ),
            Wrong(
                _sigmoid_gate,
                "This is GLU: the gate goes through the logistic function. SwiGLU takes SiLU, "
                "which is a times the logistic function of a.",
            ),
            Wrong(
                _added,
                "Gate and value are added. A gate multiplies: only a product can shut a value out.",
            ),
            Wrong(
                _activated_late,
                "SiLU is applied to the product. It belongs to the gate alone, before the product; "
                "the value stays linear in x.",
            ),
        ],
    ),
    Exercise(
        name="feed_forward.gated_width",
        cases=_width_cases,
        reference=gated_width,
        wrong=[
            Wrong(
                _down,
                "This rounds down. The rule of Llama's code rounds up, and a narrow layer would "
                "come out with width 0.",
            ),
            Wrong(
                _nearest,
                "This rounds to the nearest multiple, which is the lower one half of the time. The "
                "rule rounds up.",
            ),
            Wrong(
                _always_one_more,
                "Where the width is a multiple already, this adds another one: 256 becomes 320. "
                "Rounding up leaves multiples alone.",
            ),
            Wrong(
                _not_narrowed,
                "This is 4 d_model, the width with two matrices. A gated layer has three, so it "
                "takes two thirds of that width.",
            ),
            Wrong(
                _whole_division,
                "8 // 3 is 2 in Python, so two thirds of a d_model are lost. Multiply first: "
                "8 * d_model // 3.",
            ),
        ],
    ),
]
