"""Chapter 19, ssm: its exercises and the mistakes learners make there."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def _uniform(seed: int, low: float, high: float, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).uniform(low, high, size=shape))


# Exercise 1: two steps are one step.


def _join_cases() -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    yield (0.5, 8.0), (0.5, 0.0)
    yield (0.5, 4.0), (0.25, 1.0)
    yield (1.0, 3.0), (0.0, 2.0)
    yield (-0.5, 1.0), (0.9, -2.0)


Step = tuple[float, float]


def join(first: Step, second: Step) -> Step:
    """One step (a, b) that does what ``first`` and then ``second`` do to a state.

    >>> join((0.5, 8.0), (0.5, 0.0))
    (0.25, 4.0)
    """
    return second[0] * first[0], second[0] * first[1] + second[1]


def _wrong_way_round(first: Step, second: Step) -> Step:
    return join(second, first)


def _no_decay(first: Step, second: Step) -> Step:
    return second[0] * first[0], first[1] + second[1]


def _added(first: Step, second: Step) -> Step:
    return first[0] + second[0], second[0] * first[1] + second[1]


def _second_alone(first: Step, second: Step) -> Step:
    return second[0], second[0] * first[1] + second[1]


# Exercise 2: the kernel.


def _kernel_cases() -> Iterator[tuple[Tensor, float, Tensor, int]]:
    yield torch.tensor([-1.0], dtype=torch.float64), float(np.log(2)), torch.ones(1).double(), 4
    yield torch.tensor([-1.0, -2.0, -3.0]).double(), 0.1, _normal(20, 3), 6
    yield -_uniform(21, 0.1, 4.0, 5), 0.7, _normal(22, 5), 3


def kernel(a: Tensor, step: float, c: Tensor, length: int) -> Tensor:
    """What an input of 1 gives after 0, 1, … tokens: Σ_n c_n Āˡ_n B̄_n, (length,)."""
    later = torch.arange(length, dtype=a.dtype)[:, None]
    stays, enters = torch.exp(step * a), torch.expm1(step * a) / a
    return (stays**later * enters * c).sum(1)


def _kernel_euler(a: Tensor, step: float, c: Tensor, length: int) -> Tensor:
    later = torch.arange(length, dtype=a.dtype)[:, None]
    return (torch.exp(step * a * later) * step * c).sum(1)


def _kernel_late(a: Tensor, step: float, c: Tensor, length: int) -> Tensor:
    return kernel(a, step, c, length + 1)[1:]


def _kernel_no_input(a: Tensor, step: float, c: Tensor, length: int) -> Tensor:
    later = torch.arange(length, dtype=a.dtype)[:, None]
    return (torch.exp(step * a * later) * c).sum(1)


def _kernel_backwards(a: Tensor, step: float, c: Tensor, length: int) -> Tensor:
    return kernel(a, step, c, length).flip(0)


# Exercise 3: theorem 1.


def _gate_cases() -> Iterator[tuple[Tensor]]:
    yield (torch.zeros(1, dtype=torch.float64),)
    yield (torch.linspace(-6, 6, 7, dtype=torch.float64),)
    yield (_normal(30, 5),)


def gate(z: Tensor) -> tuple[Tensor, Tensor]:
    """A = −1, B = 1, Δ = softplus(z), held inputs: how much stays, how much enters."""
    step = F.softplus(z)
    return torch.exp(-step), -torch.expm1(-step)


def _gate_euler(z: Tensor) -> tuple[Tensor, Tensor]:
    step = F.softplus(z)
    return torch.exp(-step), step


def _gate_no_softplus(z: Tensor) -> tuple[Tensor, Tensor]:
    return torch.exp(-z), -torch.expm1(-z)


def _gate_swapped(z: Tensor) -> tuple[Tensor, Tensor]:
    return gate(z)[::-1]


def _gate_growing(z: Tensor) -> tuple[Tensor, Tensor]:
    step = F.softplus(z)
    return torch.exp(step), torch.expm1(step)


# Exercise 4: the selective scan of one channel.


def _selective_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    for seed, seq, n in ((40, 1, 1), (50, 5, 3), (60, 4, 2)):
        x, step = _normal(seed, seq), _uniform(seed + 1, 0.05, 2.0, seq)
        a = -torch.arange(1.0, n + 1, dtype=torch.float64)
        yield x, step, a, _normal(seed + 2, seq, n), _normal(seed + 3, seq, n)


def selective(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """One channel of Mamba without the skip: x, step (seq,), a (n,), b, c (seq, n) → y (seq,)."""
    h, outputs = torch.zeros_like(a), []
    for t in range(len(x)):
        h = torch.exp(step[t] * a) * h + step[t] * b[t] * x[t]
        outputs.append(c[t] @ h)
    return torch.stack(outputs)


def _read_before(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    h, outputs = torch.zeros_like(a), []
    for t in range(len(x)):
        outputs.append(c[t] @ h)
        h = torch.exp(step[t] * a) * h + step[t] * b[t] * x[t]
    return torch.stack(outputs)


def _input_without_step(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    h, outputs = torch.zeros_like(a), []
    for t in range(len(x)):
        h = torch.exp(step[t] * a) * h + b[t] * x[t]
        outputs.append(c[t] @ h)
    return torch.stack(outputs)


def _one_decay(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return selective(x, step, a[:1].expand_as(a), b, c)


def _first_choice(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return selective(x, step, a, b[:1].expand_as(b), c[:1].expand_as(c))


def _no_memory(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (c * b).sum(1) * step * x


EXERCISES = [
    Exercise(
        name="ssm.join",
        cases=_join_cases,
        reference=join,
        properties=[
            Property(
                "it does to the state 10 what both steps do one after the other",
                lambda got, first, second: (
                    abs(got[0] * 10 + got[1] - (second[0] * (first[0] * 10 + first[1]) + second[1]))
                    < 1e-9
                ),
            ),
        ],
        wrong=[
            Wrong(
                _wrong_way_round,
                "The second step is done first. The order matters: what the first brings in is "
                "faded by the second, not the other way round.",
            ),
            Wrong(
                _no_decay,
                "What the first step brought in stays whole; the second fades the state by its a, "
                "and that is part of the state by then.",
            ),
            Wrong(
                _added,
                "The factors are added. A state that is halved and halved again is a quarter: they "
                "multiply.",
            ),
            Wrong(
                _second_alone,
                "The factor is that of the second step alone; what was before both has been faded "
                "by both.",
            ),
        ],
    ),
    Exercise(
        name="ssm.kernel",
        cases=_kernel_cases,
        reference=kernel,
        properties=[
            Property(
                "one number for each distance",
                lambda got, a, step, c, length: tuple(got.shape) == (length,),
            ),
        ],
        wrong=[
            Wrong(
                _kernel_euler,
                "The input enters with Δ. That is Euler's rule; zero-order hold has "
                "(exp(Δ A) − 1) / A.",
            ),
            Wrong(
                _kernel_late,
                "The powers begin at 1. A token's own output sees it at once, at the power 0.",
            ),
            Wrong(
                _kernel_no_input,
                "How much of the input enters, B̄, is missing; only what becomes of it later is "
                "there.",
            ),
            Wrong(
                _kernel_backwards,
                "The kernel stands the wrong way round: its first number is for the distance 0.",
            ),
        ],
    ),
    Exercise(
        name="ssm.gate",
        cases=_gate_cases,
        reference=gate,
        properties=[
            Property(
                "what stays and what enters add up to 1",
                lambda got, z: bool((got[0] + got[1] - 1).abs().max() < 1e-9),
            ),
        ],
        wrong=[
            Wrong(
                _gate_euler,
                "Δ itself enters, as Euler's rule has it. Then the two do not add up to 1, and the "
                "state is no average any more.",
            ),
            Wrong(
                _gate_no_softplus,
                "Δ is z itself. A step has to be above 0, or the state grows; softplus sees to it.",
            ),
            Wrong(_gate_swapped, "What stays and what enters have changed places."),
            Wrong(
                _gate_growing,
                "A is −1, not 1: with exp(+Δ) the state grows at every token.",
            ),
        ],
    ),
    Exercise(
        name="ssm.selective",
        cases=_selective_cases,
        reference=selective,
        properties=[
            Property(
                "one output for each token",
                lambda got, x, step, a, b, c: tuple(got.shape) == tuple(x.shape),
            ),
        ],
        wrong=[
            Wrong(
                _read_before,
                "The state is read before the token has entered it, so a token never sees itself.",
            ),
            Wrong(
                _input_without_step,
                "The input enters with B alone. It is Δ B: a token that makes no step must bring "
                "nothing.",
            ),
            Wrong(
                _one_decay,
                "All numbers of the state fade at the speed of the first; each has its own A.",
            ),
            Wrong(
                _first_choice,
                "B and C of the first token serve for all. That is a fixed kernel again; each "
                "token has its own.",
            ),
            Wrong(
                _no_memory,
                "Each output sees its own token alone: the state is never carried on.",
            ),
        ],
    ),
]
