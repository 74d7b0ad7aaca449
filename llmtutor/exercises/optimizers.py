"""Chapter 10, optimizers: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong

BETA1, BETA2, EPS = 0.9, 0.95, 1e-8
State = tuple[Tensor, Tensor, Tensor]


def _draw(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(0.0, size, size=shape))


# Exercise 1: one step of AdamW.


def _step_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int, float, float]]:
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    yield one, 4 * one, zero, zero, 1, 0.1, 0.0
    yield one, zero, zero, zero, 1, 0.1, 0.5
    for t in (1, 2, 30):
        w, grad, m = (_draw(3, 4, seed=10 * t + i) for i in range(3))
        yield w, grad, 0.5 * m, _draw(3, 4, seed=10 * t + 3).square(), t, 0.01, 0.3
    tiny = _draw(5, seed=7, size=1e-8)
    yield _draw(5, seed=6), tiny, tiny, tiny.square(), 3, 0.1, 0.2


def adamw_step(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    """The new w, m and v after step number t, the first of which is 1.

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> adamw_step(one, 4 * one, zero, zero, 1, 0.1, 0.0)[0]
    tensor([0.9000])
    """
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    step = m / (1 - BETA1**t) / ((v / (1 - BETA2**t)).sqrt() + EPS)
    return w - lr * decay * w - lr * step, m, v


def _no_correction(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    return w - lr * decay * w - lr * m / (v.sqrt() + EPS), m, v


def _through_the_gradient(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    return adamw_step(w, grad + decay * w, m, v, t, lr, 0.0)


def _decay_without_lr(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    return adamw_step(w, grad, m, v, t, lr, decay / lr)


def _no_root(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    step = m / (1 - BETA1**t) / (v / (1 - BETA2**t) + EPS)
    return w - lr * decay * w - lr * step, m, v


def _eps_inside(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    step = m / (1 - BETA1**t) / (v / (1 - BETA2**t) + EPS).sqrt()
    return w - lr * decay * w - lr * step, m, v


def _corrected_memory(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    w, m, v = adamw_step(w, grad, m, v, t, lr, decay)
    return w, m / (1 - BETA1**t), v / (1 - BETA2**t)


# Exercise 2: clip by the norm of all gradients together.


def _clip_cases() -> Iterator[tuple[list[Tensor], float]]:
    yield [torch.tensor([30.0, 40.0])], 5.0
    yield [torch.tensor([3.0]), torch.tensor([[2.0, -6.0]])], 3.5
    yield [_draw(3, 4, seed=1), _draw(5, seed=2)], 1.0
    yield [_draw(3, 4, seed=1), _draw(5, seed=2)], 100.0
    yield [_draw(2, 2, seed=3, size=0.1), _draw(4, seed=4, size=10.0)], 2.0


def clip(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """All gradients times one factor, so that their common norm is at most ``max_norm``.

    >>> clip([torch.tensor([3.0]), torch.tensor([4.0])], 2.5)
    [tensor([1.5000]), tensor([2.])]
    """
    norm = sum(float(g.square().sum()) for g in grads) ** 0.5
    factor = min(1.0, max_norm / norm)
    return [g * factor for g in grads]


def _each_alone(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    return [clip([g], max_norm)[0] for g in grads]


def _each_entry(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    return [g.clamp(-max_norm, max_norm) for g in grads]


def _always(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    norm = sum(float(g.square().sum()) for g in grads) ** 0.5
    return [g * max_norm / norm for g in grads]


def _sum_of_norms(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    norm = sum(float(g.norm()) for g in grads)
    return [g * min(1.0, max_norm / norm) for g in grads]


def _root_forgotten(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    norm = sum(float(g.square().sum()) for g in grads)
    return [g * min(1.0, max_norm / norm) for g in grads]


# Exercise 3: warm-up and cosine.


def _factor_cases() -> Iterator[tuple[int, int, int]]:
    for step in (0, 2, 3, 4, 7, 11, 15, 18, 19):
        yield step, 20, 3
    yield 0, 10, 0
    yield 99, 100, 50


def factor(step: int, steps: int, warmup: int) -> float:
    """Of the peak learning rate: a line up, then half a cosine down to 0 at ``steps``.

    >>> factor(0, 20, 3), factor(3, 20, 3)
    (0.25, 1.0)
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / (steps - warmup)
    return (1 + math.cos(math.pi * done)) / 2


def _from_zero(step: int, steps: int, warmup: int) -> float:
    return step / warmup if step < warmup else factor(step, steps, warmup)


def _cosine_from_the_start(step: int, steps: int, warmup: int) -> float:
    rise = min(1.0, (step + 1) / (warmup + 1))
    return rise * (1 + math.cos(math.pi * step / steps)) / 2


def _whole_wave(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / (steps - warmup)
    return (1 + math.cos(2 * math.pi * done)) / 2


def _not_halved(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return math.cos(math.pi * (step - warmup) / (steps - warmup))


EXERCISES = [
    Exercise(
        name="optimizers.adamw_step",
        cases=_step_cases,
        reference=adamw_step,
        wrong=[
            Wrong(
                _no_correction,
                "The means are used as they are. They began at 0, so at step t they hold only "
                "1 − β^t of what they should: divide by that.",
            ),
            Wrong(
                _through_the_gradient,
                "The decay went in with the gradient and was divided by the root of v like "
                "everything there. That is L2 with Adam; in AdamW it acts on w directly.",
            ),
            Wrong(
                _decay_without_lr,
                "The decay is not multiplied by lr. Both shrink together when the learning rate "
                "falls: w loses lr · decay · w.",
            ),
            Wrong(
                _no_root,
                "The mean is divided by v itself. Only its square root has the size of a "
                "gradient, and makes the step independent of that size.",
            ),
            Wrong(
                _eps_inside,
                "eps stands under the root here. There 1e-8 counts like a gradient of 1e-4; it "
                "belongs outside, after the root.",
            ),
            Wrong(
                _corrected_memory,
                "The step is right, but the corrected means are returned. The memory stays as it "
                "is; the correction is made anew at each step.",
            ),
        ],
        mutation="Your function changes its inputs; compute new tensors and return them.",
    ),
    Exercise(
        name="optimizers.clip",
        cases=_clip_cases,
        reference=clip,
        wrong=[
            Wrong(
                _each_alone,
                "Each tensor is clipped by its own norm. Then the small gradients keep their size "
                "while the large shrink, and the direction of the whole step changes.",
            ),
            Wrong(
                _each_entry,
                "Each entry is cut off at max_norm. That is clipping by value; clipping by norm "
                "multiplies everything by one factor.",
            ),
            Wrong(
                _always,
                "Gradients shorter than max_norm are stretched to it. Clipping only ever "
                "shortens: the factor is at most 1.",
            ),
            Wrong(
                _sum_of_norms,
                "The norms of the tensors were added. The norm of all entries together is the "
                "root of the sum of their squares.",
            ),
            Wrong(
                _root_forgotten,
                "The sum of squares was used where its square root, the norm, is meant.",
            ),
        ],
        mutation="Your function changes the gradients it was given; return new ones.",
    ),
    Exercise(
        name="optimizers.factor",
        cases=_factor_cases,
        reference=factor,
        wrong=[
            Wrong(
                _from_zero,
                "The first step has the factor 0: a whole batch is read and nothing is learned "
                "from it. Begin with 1 / (warmup + 1).",
            ),
            Wrong(
                _cosine_from_the_start,
                "The cosine began at step 0, during the warm-up, so the peak of 1 is never "
                "reached. It begins where the warm-up ends.",
            ),
            Wrong(
                _whole_wave,
                "A whole wave goes down and comes up again: the run would end at the peak "
                "learning rate. Half a wave, up to π, is enough.",
            ),
            Wrong(
                _not_halved,
                "The cosine runs from 1 to −1, and a negative learning rate climbs. Add 1 and "
                "halve it.",
            ),
        ],
    ),
]
