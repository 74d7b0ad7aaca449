"""Chapter 10, optimizers, step 6: the learning rate as a pure function of the step.

A schedule gives the factor of the peak learning rate at a step, counted from 0. It remembers
nothing: a run that is resumed at step 700 asks for the factor of step 700.
"""

import math
from collections.abc import Callable
from typing import Any

from llmtutor.checks import check_name
from llmtutor.optim.base import check_at_least_0

Schedule = Callable[[int], float]


def constant(warmup: int = 0) -> Schedule:
    """1, after a linear warm-up.

    ``warmup`` is the number of steps below the peak: the first has 1/(warmup + 1), not 0.

    >>> [constant(3)(step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    check_at_least_0(warmup=warmup)
    return lambda step: min(1.0, (step + 1) / (warmup + 1))


def warmup_cosine(steps: int, warmup: int, final: float = 0.1) -> Schedule:
    """Linear warm-up, then half a cosine from 1 to ``final``, which step ``steps`` would have.

    >>> [round(warmup_cosine(8, 2, final=0.0)(step), 2) for step in range(9)]
    [0.33, 0.67, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    _check_span(steps, warmup, 0, final)
    rise = constant(warmup)

    def factor(step: int) -> float:
        done = min(1.0, max(0.0, (step - warmup) / (steps - warmup)))
        return rise(step) * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)

    return factor


def wsd(steps: int, warmup: int, decay: int, final: float = 0.0) -> Schedule:
    """Warm-up, stable, decay: the last ``decay`` of ``steps`` fall on a line towards ``final``.

    The stable stretch can be made longer afterwards without spoiling what was trained (Hu et
    al. 2024).

    >>> [wsd(8, 1, decay=4)(step) for step in range(9)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    _check_span(steps, warmup, decay, final)
    if decay < 1:
        raise ValueError(f"decay must be at least 1 step, got {decay}")
    rise = constant(warmup)

    def factor(step: int) -> float:
        done = min(1.0, max(0.0, (step - (steps - decay)) / decay))
        return rise(step) * (1 - (1 - final) * done)

    return factor


def inverse_sqrt(warmup: int) -> Schedule:
    """Linear warm-up, then ``√((warmup + 1) / (step + 1))``, which needs no last step.

    The schedule of Vaswani et al. (2017), scaled to a peak of 1.

    >>> [round(inverse_sqrt(3)(step), 2) for step in (0, 1, 2, 3, 8, 15)]
    [0.25, 0.5, 0.75, 1.0, 0.67, 0.5]
    """
    check_at_least_0(warmup=warmup)
    return lambda step: min((step + 1) / (warmup + 1), math.sqrt((warmup + 1) / (step + 1)))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    make.__name__: make for make in (constant, warmup_cosine, wsd, inverse_sqrt)
}


def make_schedule(
    name: str, *, steps: int, warmup: int = 0, final: float | None = None, decay: int | None = None
) -> Schedule:
    """The schedule called ``name``; settings that it does not have are left out.

    ``final`` is a factor of the peak (None: the schedule's own default); ``decay`` of wsd is a
    fifth of the steps unless it is given.

    >>> make_schedule("wsd", steps=100, warmup=9)(90)
    0.5

    Raises:
        ValueError: an unknown name (with the nearest one), or a setting out of range.
    """
    check_name("schedule", name, SCHEDULES)
    given: dict[str, Any] = {"warmup": warmup}
    if name in ("warmup_cosine", "wsd"):
        given |= {"steps": steps} | ({} if final is None else {"final": final})
    if name == "wsd":
        given["decay"] = max(1, steps // 5) if decay is None else decay
    return SCHEDULES[name](**given)


def _check_span(steps: int, warmup: int, decay: int, final: float) -> None:
    check_at_least_0(warmup=warmup, decay=decay, final=final)
    if not warmup + decay < steps + (decay > 0):
        parts = f"warmup = {warmup}" + (f" and decay = {decay}" if decay else "")
        raise ValueError(f"{parts} do not fit into steps = {steps}; make them shorter")
