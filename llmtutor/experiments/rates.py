"""Chapter 10, optimizers: the learning rate that a search found, for each of several things."""

from collections.abc import Callable, Iterable, Mapping
from math import inf
from operator import itemgetter
from typing import Any

from llmtutor.experiments.study import Record

Reading = Callable[[Mapping[str, Any]], float | None]
"""From the result of a run the loss that a search compares; None if it diverged."""


def best_rates(
    record: Record, what: str, values: Iterable[str], loss: Reading = itemgetter("valid_loss")
) -> dict[str, float]:
    """By value of the setting ``what``, the ``lr`` with the lowest loss.

    Raises:
        ValueError: the best one is an end of the rates that were tried, as ``inner_best``.
    """
    return {v: inner_best(losses_by_rate(record, what, v, loss), v) for v in values}


def losses_by_rate(
    record: Record, what: str, value: str, loss: Reading = itemgetter("valid_loss")
) -> dict[float, float]:
    """Loss by ``lr``; infinite where a run diverged."""
    found = {}
    for run in record.runs:
        if run["settings"][what] == value:
            read = loss(run["result"])
            found[run["settings"]["lr"]] = inf if read is None else read
    return found


def inner_best(losses: Mapping[float, float], name: str = "") -> float:
    """The rate with the lowest loss.

    >>> inner_best({0.1: 2.0, 0.2: 1.0, 0.4: 3.0})
    0.2

    Raises:
        ValueError: it is the smallest or the largest, so a better one may lie outside.
    """
    best = min(losses, key=losses.__getitem__)
    if best in (min(losses), max(losses)):
        raise ValueError(
            f"{name or 'the search'}: the lowest loss is at {best:g}, an end of the rates tried; "
            "try more"
        )
    return best


def search(loss_at: Callable[[float], float], start: float, most: int = 10) -> dict[float, float]:
    """Losses at ``start`` and at its halves and doubles, until the lowest has one on each side.

    >>> search(lambda lr: abs(lr - 8), start=1.0)
    {0.5: 7.5, 1.0: 7.0, 2.0: 6.0, 4.0: 4.0, 8.0: 0.0, 16.0: 8.0}

    Raises:
        ValueError: ``most`` rates were not enough.
    """
    losses = {rate: loss_at(rate) for rate in (start / 2, start, 2 * start)}
    while (best := min(losses, key=losses.__getitem__)) in (min(losses), max(losses)):
        if len(losses) == most:
            raise ValueError(f"no lowest loss inside of {most} rates from {min(losses):g}")
        further = best / 2 if best == min(losses) else 2 * best
        losses[further] = loss_at(further)
    return dict(sorted(losses.items()))
