"""Chapter 12, scaling: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llmtutor.exercises.core import Exercise, Property, Wrong
from llmtutor.experiments.scaling import Law

# Exercise 1: the cheapest of several equally good models.

REFIT = Law(1.8172, (482.01, 2085.43), (0.3478, 0.3658))
"""That of Besiroglu et al. (2024), a loss in nats a token."""


def _equals() -> Iterator[tuple[list[tuple[float, float]], float]]:
    for sizes, served in (
        ((7e9, 13e9, 26e9), 2e12),
        ((7e9, 13e9, 26e9), 0.0),
        ((2e9, 4e9, 8e9, 16e9), 1e13),
        ((26e9, 13e9, 7e9), 1.5e11),
    ):
        loss = REFIT(sizes[1], 20 * sizes[1])
        yield [(n, _length(n, loss)) for n in sizes if loss > REFIT(n, math.inf)], served


def _length(n_params: float, loss: float) -> float:
    """Tokens with which a model of this size reaches the loss."""
    left = loss - REFIT(n_params, math.inf)
    return float((REFIT.coefficients[1] / left) ** (1 / REFIT.exponents[1]))


def cheapest(pairs: Sequence[tuple[float, float]], served: float) -> int:
    """Which (parameters, tokens) costs least, trained once and run forward on ``served`` tokens.

    >>> cheapest([(10.0, 100.0), (5.0, 220.0)], 0.0), cheapest([(10.0, 100.0), (5.0, 220.0)], 100.0)
    (0, 1)
    """
    return _least([6 * n * d + 2 * n * served for n, d in pairs])


def _least(costs: Sequence[float]) -> int:
    return min(range(len(costs)), key=lambda i: costs[i])


def _training_only(pairs: Sequence[tuple[float, float]], served: float) -> int:
    return _least([6 * n * d for n, d in pairs])


def _served_alone(pairs: Sequence[tuple[float, float]], served: float) -> int:
    return _least([n for n, _ in pairs])


def _as_in_training(pairs: Sequence[tuple[float, float]], served: float) -> int:
    return _least([6 * n * (d + served) for n, d in pairs])


# Exercise 2: between the learning rates tried.


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


def _left_in_logs(losses: Mapping[float, float]) -> float:
    return math.log(best_rate(losses))


def _lowest_tried(losses: Mapping[float, float]) -> float:
    return min(losses, key=lambda rate: losses[rate])


# Exercise 3: an interval for a run to come.


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
        name="scaling.cheapest",
        cases=_equals,
        reference=cheapest,
        wrong=[
            Wrong(
                _training_only,
                "This is the cheapest to train. Each token that is served costs a forward pass, "
                "two operations a parameter, on top.",
            ),
            Wrong(
                _served_alone,
                "This is the cheapest to serve. A small model needs far more tokens to become as "
                "good, and its training is paid as well.",
            ),
            Wrong(
                _as_in_training,
                "Served tokens count six operations a parameter here. Nobody runs a backward "
                "pass for them: it is two.",
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
