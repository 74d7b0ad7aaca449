"""Chapter 12, scaling: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llmtutor.exercises.core import Exercise, Property, Wrong

# Exercise 1: what a budget buys.


def _budgets() -> Iterator[tuple[float, int]]:
    yield 6e12, 1_000_000
    yield 1e13, 250_000
    yield 3.6e10, 6_000


def tokens_for(flops: float, n_params: int) -> float:
    """Tokens that a model of ``n_params`` parameters can train on with this many operations.

    >>> tokens_for(6e12, 1_000_000)
    1000000.0
    """
    return flops / (6 * n_params)


def _forward_only(flops: float, n_params: int) -> float:
    return flops / (2 * n_params)


def _backward_only(flops: float, n_params: int) -> float:
    return flops / (4 * n_params)


def _one_product(flops: float, n_params: int) -> float:
    return flops / n_params


def _twenty(flops: float, n_params: int) -> float:
    return 20 * n_params


# Exercise 2: the floor and the coefficient, when the exponent is known.


def _curves() -> Iterator[tuple[list[float], list[float], float]]:
    yield [4.0, 16.0, 64.0], [5.0, 3.0, 2.0], 0.5
    yield [1e4, 3e4, 1e5, 3e5], [2.5, 2.31, 2.13, 2.02], 0.3
    yield [10.0, 100.0, 1000.0], [4.1, 2.3, 2.2], 0.8


def floor_and_coefficient(
    sizes: Sequence[float], losses: Sequence[float], exponent: float
) -> tuple[float, float]:
    """E and A of the curve E + A · size^(−exponent) nearest to the losses (least squares).

    >>> e, a = floor_and_coefficient([4.0, 16.0, 64.0], [5.0, 3.0, 2.0], 0.5)
    >>> round(e, 6), round(a, 6)
    (1.0, 8.0)
    """
    return _line(np.asarray(sizes) ** -exponent, losses)


def _line(x: np.ndarray, losses: Sequence[float]) -> tuple[float, float]:
    slope, start = np.polyfit(x, losses, 1)
    return float(start), float(slope)


def _no_floor(
    sizes: Sequence[float], losses: Sequence[float], exponent: float
) -> tuple[float, float]:
    x = np.asarray(sizes) ** -exponent
    return 0.0, float(x @ np.asarray(losses) / (x @ x))


def _grows(sizes: Sequence[float], losses: Sequence[float], exponent: float) -> tuple[float, float]:
    return _line(np.asarray(sizes) ** exponent, losses)


def _other_order(
    sizes: Sequence[float], losses: Sequence[float], exponent: float
) -> tuple[float, float]:
    floor, coefficient = floor_and_coefficient(sizes, losses, exponent)
    return coefficient, floor


def _last_is_floor(
    sizes: Sequence[float], losses: Sequence[float], exponent: float
) -> tuple[float, float]:
    x = np.asarray(sizes) ** -exponent
    above = np.asarray(losses) - min(losses)
    return min(losses), float(x @ above / (x @ x))


# Exercise 3: between the learning rates tried.


def _sweeps() -> Iterator[tuple[dict[float, float]]]:
    yield ({0.001: 2.1, 0.01: 2.0, 0.1: 2.3},)
    yield ({0.016: 2.25, 0.008: 2.05, 0.032: 2.6, 0.004: 2.1},)
    yield ({0.002: 1.9, 0.004: 1.8, 0.008: 1.75, 0.016: 1.79, 0.032: 2.4},)


def best_rate(losses: Mapping[float, float]) -> float:
    """The lowest point of the parabola in log(rate) through the best rate and its neighbours.

    >>> round(best_rate({0.001: 2.1, 0.01: 2.0, 0.1: 2.1}), 6)
    0.01
    """
    around = _around(losses)
    a, b, _ = np.polyfit(np.log(around), [losses[rate] for rate in around], 2)
    return float(np.exp(-b / (2 * a)))


def _around(losses: Mapping[float, float]) -> list[float]:
    rates = sorted(losses)
    best = min(range(len(rates)), key=lambda i: losses[rates[i]])
    return rates[best - 1 : best + 2]


def _without_log(losses: Mapping[float, float]) -> float:
    around = _around(losses)
    a, b, _ = np.polyfit(around, [losses[rate] for rate in around], 2)
    return float(-b / (2 * a))


def _all_points(losses: Mapping[float, float]) -> float:
    rates = list(losses)
    a, b, _ = np.polyfit(np.log(rates), [losses[rate] for rate in rates], 2)
    return float(np.exp(-b / (2 * a)))


def _lowest_tried(losses: Mapping[float, float]) -> float:
    return min(losses, key=lambda rate: losses[rate])


def _left_in_logs(losses: Mapping[float, float]) -> float:
    return math.log(best_rate(losses))


# Exercise 4: an interval for a run to come.


def _draws() -> Iterator[tuple[list[float], list[float], float]]:
    random = np.random.default_rng(0)
    for n, coverage in ((200, 0.9), (300, 0.8), (200, 0.5)):
        yield (
            random.normal(2, 0.02, n).round(4).tolist(),
            random.normal(0, 0.03, n).round(4).tolist(),
            coverage,
        )


def interval(
    curves: Sequence[float], errors: Sequence[float], coverage: float
) -> tuple[float, float]:
    """Where one more measurement is expected with this probability.

    >>> interval([2.0] * 101, [i / 100 for i in range(101)], 0.9)
    (2.05, 2.95)
    """
    return _quantiles(np.asarray(curves) + np.asarray(errors), (1 - coverage) / 2)


def _quantiles(draws: np.ndarray, outside: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [outside, 1 - outside])
    return float(low), float(high)


def _curve_only(
    curves: Sequence[float], errors: Sequence[float], coverage: float
) -> tuple[float, float]:
    return _quantiles(np.asarray(curves), (1 - coverage) / 2)


def _errors_only(
    curves: Sequence[float], errors: Sequence[float], coverage: float
) -> tuple[float, float]:
    return _quantiles(np.mean(curves) + np.asarray(errors), (1 - coverage) / 2)


def _each_side(
    curves: Sequence[float], errors: Sequence[float], coverage: float
) -> tuple[float, float]:
    return _quantiles(np.asarray(curves) + np.asarray(errors), 1 - coverage)


def _one_deviation(
    curves: Sequence[float], errors: Sequence[float], coverage: float
) -> tuple[float, float]:
    draws = np.asarray(curves) + np.asarray(errors)
    return float(draws.mean() - draws.std()), float(draws.mean() + draws.std())


EXERCISES = [
    Exercise(
        name="scaling.tokens_for",
        cases=_budgets,
        reference=tokens_for,
        wrong=[
            Wrong(
                _forward_only,
                "Two operations a parameter and token are the forward pass alone. The backward "
                "pass takes twice as many again.",
            ),
            Wrong(
                _backward_only,
                "Four operations a parameter and token are the backward pass alone. The forward "
                "pass comes before it and takes two.",
            ),
            Wrong(
                _one_product,
                "This is one operation a parameter and token. A product and a sum are two, and "
                "there are three passes' worth of them.",
            ),
            Wrong(
                _twenty,
                "Twenty tokens a parameter is advice for dividing a budget. What a given budget "
                "buys at a given size is arithmetic.",
            ),
        ],
    ),
    Exercise(
        name="scaling.floor_and_coefficient",
        cases=_curves,
        reference=floor_and_coefficient,
        properties=[
            Property(
                "the answer is a pair of numbers",
                lambda received, *_: len(received) == 2,
            ),
        ],
        wrong=[
            Wrong(
                _no_floor,
                "The floor is fixed at 0. Text has an entropy, which no size removes; the floor "
                "is one of the two numbers to fit.",
            ),
            Wrong(
                _grows,
                "The line is one in size^exponent, so the curve grows without end. The loss falls "
                "with size^(−exponent).",
            ),
            Wrong(
                _other_order,
                "Both numbers are there, in the other order: the floor comes first, then the "
                "coefficient.",
            ),
            Wrong(
                _last_is_floor,
                "The lowest loss measured is taken as the floor. The floor lies below all of them, "
                "or the largest model would be as good as an infinite one.",
            ),
        ],
    ),
    Exercise(
        name="scaling.best_rate",
        cases=_sweeps,
        reference=best_rate,
        wrong=[
            Wrong(
                _without_log,
                "The parabola is one of the learning rate itself. Rates are tried in ratios, and "
                "the loss is nearly a parabola in their logarithm.",
            ),
            Wrong(
                _all_points,
                "The parabola goes through all rates. Far from the best one the loss is no "
                "parabola; take the best rate and its two neighbours.",
            ),
            Wrong(
                _lowest_tried,
                "This is the best of the rates tried. The lowest point lies between them.",
            ),
            Wrong(
                _left_in_logs,
                "This is the logarithm of the rate; it needs an exp at the end.",
            ),
        ],
    ),
    Exercise(
        name="scaling.interval",
        cases=_draws,
        reference=interval,
        properties=[
            Property("the low end comes first", lambda received, *_: received[0] <= received[1]),
        ],
        wrong=[
            Wrong(
                _curve_only,
                "This says where the curve is. A new measurement also misses the curve, by an "
                "error like those in the fit.",
            ),
            Wrong(
                _errors_only,
                "This takes one curve for granted. The constants could have come out otherwise "
                "as well: each draw has a curve of its own.",
            ),
            Wrong(
                _each_side,
                "The part left out is left out at each end, so twice in all. Each end gets half "
                "of it.",
            ),
            Wrong(
                _one_deviation,
                "One deviation on either side has a coverage of its own (68 % for a normal "
                "distribution), whatever was asked for. Take quantiles.",
            ),
        ],
    ),
]
