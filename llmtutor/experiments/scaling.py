"""Chapter 12, scaling: laws through losses, how far to trust them, and what they say to do next.

A law is a floor and a few falling powers, ``L(x₁, x₂, …) = E + Σ cᵢ xᵢ^(−aᵢ)``; with parameters
and tokens it is that of Hoffmann et al. (2022), ``L(N, D) = E + A/N^α + B/D^β``. Once the
exponents are chosen the rest is linear, so fitting is a search over exponents with least squares
inside (variable projection), and needs nothing but NumPy.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

EXPONENTS = np.geomspace(0.02, 2.0, 70)
"""Exponents that are tried, each about 7 % above the last."""


@dataclass(frozen=True)
class Law:
    """``L(x₁, …) = floor + Σ coefficientᵢ · xᵢ^(−exponentᵢ)``.

    >>> law = Law(1.5, (4.0,), (0.5,))
    >>> law(16.0), law(64.0)
    (2.5, 2.0)
    """

    floor: float
    """The loss that no size brings below: E."""
    coefficients: tuple[float, ...]
    """A, B, …"""
    exponents: tuple[float, ...]
    """α, β, …"""

    def __call__(self, *x: float) -> float:
        """The loss at these sizes."""
        terms = zip(self.coefficients, x, self.exponents, strict=True)
        return self.floor + sum(c * size**-a for c, size, a in terms)


@dataclass(frozen=True)
class Prediction:
    """A loss that was not measured, and where it is expected."""

    loss: float
    low: float
    high: float
    coverage: float
    """How often such an interval should hold what comes."""

    def __contains__(self, loss: float) -> bool:
        return self.low <= loss <= self.high


def fit_law(x: Float[Array, "n k"], losses: Float[Array, "n"]) -> Law:
    """The law with the smallest sum of squared errors, over EXPONENTS and then finer.

    ``x`` has one row a measurement and one column a quantity that was scaled.

    >>> sizes = np.array([[10.0], [100.0], [1000.0], [10000.0]])
    >>> law = fit_law(sizes, 1.5 + 4 * sizes[:, 0] ** -0.5)
    >>> round(law.floor, 3), round(law.coefficients[0], 3), round(law.exponents[0], 3)
    (1.5, 4.0, 0.5)

    Raises:
        ValueError: fewer rows than constants, sizes that are not positive, no law with a floor
            and coefficients of at least 0 (the losses do not fall).
    """
    x, losses = _check(x, losses)
    grids = [EXPONENTS] * x.shape[1]
    step = math.log(EXPONENTS[1] / EXPONENTS[0])
    law = _fit_many(x, losses[None], grids)[0]
    for _ in range(4):  # each round looks closer around the best so far
        grids = [a * np.exp(np.linspace(-step, step, 13)) for a in law.exponents]
        law, step = _fit_many(x, losses[None], grids)[0], step / 6
    return law


def bootstrap(
    x: Float[Array, "n k"], losses: Float[Array, "n"], n: int = 500, *, seed: int = 0
) -> tuple[list[Law], Float[Array, "n_laws"]]:
    """``n`` laws that could as well have been fitted, and an error to go with each.

    The errors that the fit leaves are drawn with replacement, made larger by √(n/(n−p)) for the p
    constants that have bent towards them, and put on the fitted curve; each such set of losses is
    fitted again. The errors returned are more draws of the same kind, for measurements to come.
    """
    x, losses = _check(x, losses)
    law = fit_law(x, losses)
    fitted = np.array([law(*row) for row in x])
    constants = 1 + 2 * x.shape[1]
    errors = (losses - fitted) * math.sqrt(len(x) / (len(x) - constants))
    random = np.random.default_rng(seed)
    again = fitted + random.choice(errors, (n, len(x)))
    return _fit_many(x, again, [EXPONENTS] * x.shape[1]), random.choice(errors, n)


def predict(
    x: Float[Array, "n k"],
    losses: Float[Array, "n"],
    at: Sequence[float],
    *,
    coverage: float = 0.9,
    n: int = 500,
    seed: int = 0,
) -> Prediction:
    """The loss to expect at the sizes ``at``, with an interval for one more measurement there.

    The interval covers what the measurements can tell: that other constants would have fitted as
    well, and that a measurement misses its law as those in the fit do. It does *not* cover a law
    that changes its form beyond the range.
    """
    laws, errors = bootstrap(x, losses, n, seed=seed)
    draws = [law(*at) + error for law, error in zip(laws, errors, strict=True)]
    low, high = np.quantile(draws, [(1 - coverage) / 2, (1 + coverage) / 2])
    return Prediction(fit_law(x, losses)(*at), float(low), float(high), coverage)


def compute_optimal(law: Law, flops: float) -> tuple[float, float]:
    """Parameters and tokens that spend ``flops`` = 6 N D best, under a law of both.

    Setting the derivative of L(N, C/6N) to zero gives N = G (C/6)^(β/(α+β)) with
    G = (αA / βB)^(1/(α+β)), Hoffmann et al. (2022), equation 4.

    >>> compute_optimal(Law(0.0, (1.0, 1.0), (0.5, 0.5)), 6e4)
    (100.0, 100.0)
    """
    (a, b), (alpha, beta) = law.coefficients, law.exponents
    product = flops / 6
    n_params = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * product ** (beta / (alpha + beta))
    return n_params, product / n_params


def power_law(x: Sequence[float], y: Sequence[float]) -> Law:
    """``y = c · x^(−a)``: a straight line through the logarithms; no floor."""
    slope, start = np.polyfit(np.log(x), np.log(y), 1)
    return Law(0.0, (float(np.exp(start)),), (float(-slope),))


def best_learning_rate(losses: Mapping[float, float]) -> float:
    """Where the parabola, in log lr, through the lowest loss and its neighbours has its minimum.

    Raises:
        ValueError: the lowest loss is the first or the last, so the best may lie outside.
    """
    rates = sorted(losses)
    best = min(range(len(rates)), key=lambda i: losses[rates[i]])
    if best in (0, len(rates) - 1):
        raise ValueError(
            f"the lowest loss is at {rates[best]:g}, an end of the rates tried "
            f"({rates[0]:g} to {rates[-1]:g}): the best may lie outside, try more"
        )
    around = rates[best - 1 : best + 2]
    a, b, _ = np.polyfit(np.log(around), [losses[rate] for rate in around], 2)
    return float(np.exp(-b / (2 * a)))


def lowest(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """The size at which the parabola in log size nearest to the losses is lowest, and its loss.

    Of models that were trained with one budget this is the best size (Hoffmann et al. 2022,
    section 3.2).

    >>> size, loss = lowest([100.0, 1000.0, 10000.0], [2.1, 2.0, 2.1])
    >>> round(size), round(loss, 3)
    (1000, 2.0)

    Raises:
        ValueError: the lowest point is no minimum, or lies outside the sizes tried.
    """
    a, b, c = np.polyfit(np.log(sizes), losses, 2)
    size = float(np.exp(-b / (2 * a)))
    if a <= 0 or not min(sizes) < size < max(sizes):
        raise ValueError(
            f"no lowest point among the sizes {min(sizes):g} to {max(sizes):g}: try smaller or "
            "larger models"
        )
    return size, float(c - b**2 / (4 * a))


def _check(x: Array, losses: Array) -> tuple[Array, Array]:
    x, losses = np.asarray(x, float), np.asarray(losses, float)
    if x.ndim != 2 or losses.shape != x.shape[:1]:
        raise ValueError(
            f"expected a row of sizes for each loss, got sizes of shape {x.shape} and losses of "
            f"shape {losses.shape}"
        )
    constants = 1 + 2 * x.shape[1]
    if len(x) <= constants:
        raise ValueError(
            f"a law of {x.shape[1]} sizes has {constants} constants and needs more measurements "
            f"than that, got {len(x)}"
        )
    if not (x > 0).all() or not np.isfinite(losses).all():
        raise ValueError("sizes must be above 0 and losses finite")
    return x, losses


def _fit_many(
    x: Float[Array, "n k"], sets: Float[Array, "n_sets n"], grids: Sequence[Array]
) -> list[Law]:
    """The best law on a grid of exponents for each of several sets of losses at the same sizes."""
    exponents = np.array(list(itertools.product(*grids)))
    scale = np.exp(np.log(x).mean(0))  # sizes near 1 keep the columns comparable
    powers = (x / scale)[None] ** -exponents[:, None, :]
    design = np.concatenate([np.ones((len(exponents), len(x), 1)), powers], axis=2)
    q, r = np.linalg.qr(design)
    inverse = np.linalg.pinv(r)
    least = np.full(len(sets), np.inf)
    chosen = np.zeros((len(sets), design.shape[2]))
    picked = np.zeros((len(sets), x.shape[1]))
    for i in range(len(exponents)):
        inside = sets @ q[i]
        error = (sets**2).sum(1) - (inside**2).sum(1)
        constants = inside @ inverse[i].T
        better = (error < least) & (constants >= 0).all(1)
        least[better], chosen[better] = error[better], constants[better]
        picked[better] = exponents[i]
    if not np.isfinite(least).all():
        raise ValueError(
            "no law with a floor and coefficients of at least 0 fits: do the losses fall with size?"
        )
    coefficients = chosen[:, 1:] * scale**picked
    return [
        Law(float(c[0]), tuple(map(float, k)), tuple(map(float, a)))
        for c, k, a in zip(chosen, coefficients, picked, strict=True)
    ]
