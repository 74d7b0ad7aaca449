"""Chapter 20, comparison: is one variant better than another, by how much, and how sure are we?

Two variants are trained with the same seeds, so that they see the same batches, and are compared
seed by seed: what a lucky seed gives to both cancels in the difference. Numbers are losses; lower
is better, and a negative difference speaks for the variant.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy import optimize, stats

Q = TypeVar("Q", bound=Hashable)  # what a question is called

Verdict = Literal["better", "worse", "not distinguishable"]
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Comparison:
    """What the seeds say about a variant and the baseline."""

    n_seeds: int
    """Pairs of runs."""
    difference: float
    """Mean over seeds of loss(variant) − loss(baseline)."""
    deviation: float
    """Standard deviation of the differences, with n − 1."""
    t_interval: tuple[float, float]
    """Holds the true difference in a part 1 − alpha of all studies, if differences are normal."""
    bootstrap_interval: tuple[float, float]
    """The same without that assumption; too narrow for few seeds (see ``bootstrap_interval``)."""
    p_value: float
    """Of the paired t-test, two-sided."""
    adjusted_p: float
    """After Holm's correction for the family it is in; ``p_value`` if it stands alone."""
    alpha: float
    """Chance of a verdict where there is no difference, in the whole family."""
    seeds_needed: int | None
    """Seeds that would tell a difference of just this size. For a given number of pairs that is
    ``p_value`` in other words; ``detectable_difference`` says what these pairs could show."""

    @property
    def verdict(self) -> Verdict:
        """By ``adjusted_p``: an interval, which knows nothing of the family, may look surer."""
        if self.adjusted_p >= self.alpha:
            return "not distinguishable"
        return "better" if self.difference < 0 else "worse"


def compare(
    variant: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    alpha: float = 0.05,
    family: int = 1,
) -> Comparison:
    """The paired comparison of losses by seed, of one variant alone.

    As one of a ``family`` of so many, ``seeds_needed`` is for alpha divided by their number, enough
    in any order of Holm's correction, which is ``compare_family``'s.

    >>> one = compare({1: 2.0, 2: 2.1, 3: 1.9}, {1: 2.2, 2: 2.4, 3: 2.1})
    >>> round(one.difference, 3), round(one.p_value, 3), one.verdict
    (-0.233, 0.02, 'better')

    Raises:
        ValueError: other seeds on one side, fewer than two seeds, a loss that is not finite,
            alpha outside (0, 1).
    """
    _check_alpha(alpha)
    differences = _paired_differences(variant, baseline)
    n, mean = len(differences), float(differences.mean())
    deviation = float(differences.std(ddof=1))
    if deviation > 0:
        p_value = 2 * float(stats.t.sf(abs(mean) / (deviation / math.sqrt(n)), n - 1))
    else:  # the same difference for every seed, as of a variant with itself
        p_value = 0.0 if mean else 1.0
    return Comparison(
        n_seeds=n,
        difference=mean,
        deviation=deviation,
        t_interval=t_interval(differences, alpha),
        bootstrap_interval=bootstrap_interval(differences, alpha),
        p_value=p_value,
        adjusted_p=p_value,
        alpha=alpha,
        seeds_needed=seeds_needed(mean, deviation, alpha=alpha / family),
    )


def _paired_differences(
    variant: Mapping[int, float], baseline: Mapping[int, float]
) -> Float[Array, "n"]:
    """loss(variant) − loss(baseline) for each seed, in order of the seeds."""
    if variant.keys() != baseline.keys():
        raise ValueError(
            f"expected the same seeds on both sides, got {sorted(variant)} and {sorted(baseline)}; "
            "runs with different seeds are not pairs"
        )
    if len(variant) < 2:
        raise ValueError(f"expected at least two seeds, got {len(variant)}: one shows no spread")
    for seed, loss in (*variant.items(), *baseline.items()):
        if not math.isfinite(loss):
            raise ValueError(f"the loss of seed {seed} is {loss}; did the run diverge?")
    return np.array([variant[seed] - baseline[seed] for seed in sorted(variant)])


def compare_family(
    variants: Mapping[str, Mapping[int, float]],
    baseline: Mapping[int, float],
    *,
    alpha: float = 0.05,
) -> dict[str, Comparison]:
    """Several variants against one baseline, with Holm's correction over all of them.

    Among twenty variants that change nothing, one would come out "better" or "worse" without it.

    Raises:
        ValueError: no variants, or what ``compare`` refuses, with the variant's name.
    """
    return compare_pairs(
        {name: (losses, baseline) for name, losses in variants.items()}, alpha=alpha
    )


def compare_pairs(
    questions: Mapping[Q, tuple[Mapping[int, float], Mapping[int, float]]],
    *,
    alpha: float = 0.05,
) -> dict[Q, Comparison]:
    """Questions with a baseline each, (variant, baseline), as one family for Holm's correction.

    Raises:
        ValueError: no questions, or what ``compare`` refuses, with the question's name.
    """
    if not questions:
        raise ValueError("nothing to compare: the family has no variants")
    single: dict[Q, Comparison] = {}
    for name, (variant, baseline) in questions.items():
        try:
            single[name] = compare(variant, baseline, alpha=alpha, family=len(questions))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    adjusted = holm([one.p_value for one in single.values()])
    pairs = zip(single.items(), adjusted, strict=True)
    return {name: replace(one, adjusted_p=p) for (name, one), p in pairs}


def t_interval(differences: Float[Array, "n"], alpha: float = 0.05) -> tuple[float, float]:
    """``mean ± t · deviation / √n``, t the quantile 1 − alpha/2 with n − 1 degrees of freedom.

    >>> [round(x, 3) for x in t_interval(np.array([1.0, 2.0, 3.0]))]  # 2 ± 4.303 / √3
    [-0.484, 4.484]
    """
    _check_alpha(alpha)
    n = len(differences)
    half = float(stats.t.isf(alpha / 2, n - 1)) * differences.std(ddof=1) / math.sqrt(n)
    return float(differences.mean() - half), float(differences.mean() + half)


def bootstrap_interval(
    differences: Float[Array, "n"], alpha: float = 0.05, *, n_draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Where the means of resampled differences lie: their quantiles alpha/2 and 1 − alpha/2.

    Each draw takes n of the n differences with replacement (Efron 1979; the percentile interval).
    It never reaches beyond the differences that were seen, so with five seeds it holds the truth
    in about 83 % of studies instead of 95 %; with thirty it does what it says. Beside the
    t interval it shows how much that one owes to the normal distribution.
    """
    _check_alpha(alpha)
    draws = np.random.default_rng(seed).choice(differences, (n_draws, len(differences)))
    low, high = np.quantile(draws.mean(axis=1), [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that one wrong verdict *anywhere* has a chance below alpha.

    The smallest of m is multiplied by m, the next by m − 1 and so on; none may become smaller
    than the one before it, nor exceed 1 (Holm 1979). Tests need not be independent, which those
    against one baseline are not.

    >>> [round(p, 9) for p in holm([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]

    Raises:
        ValueError: a number outside [0, 1].
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"expected p-values between 0 and 1, got {p}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min((len(p_values) - rank) * p_values[i], 1.0))
        adjusted[i] = largest
    return adjusted


def power(difference: float, deviation: float, n_seeds: int, alpha: float = 0.05) -> float:
    """Chance that ``n_seeds`` pairs tell a true difference: the paired t-test's, two-sided.

    The square of the statistic then has the noncentral F distribution with 1 and n − 1 degrees of
    freedom around n · (difference / deviation)². (Not the noncentral t of the statistic itself:
    SciPy's gives nan for some large differences.)

    >>> round(power(0.0, 1.0, 5), 3), round(power(1.0, 1.0, 10), 3)
    (0.05, 0.803)

    Raises:
        ValueError: a deviation that is not above 0, fewer than two seeds, a bad alpha.
    """
    _check_alpha(alpha)
    if not deviation > 0 or n_seeds < 2:
        got = f"got {deviation} and {n_seeds} seeds"
        raise ValueError(f"expected a deviation above 0 and at least two seeds, {got}")
    bound = stats.t.isf(alpha / 2, n_seeds - 1) ** 2
    centre = n_seeds * (difference / deviation) ** 2
    if centre == 0:
        return alpha  # by definition; SciPy 1.17 gives alpha − 1 here
    return float(stats.ncf.sf(bound, 1, n_seeds - 1, centre))


def detectable_difference(
    deviation: float, n_seeds: int, *, alpha: float = 0.05, chance: float = 0.8
) -> float:
    """The smallest true difference that ``n_seeds`` pairs tell with the given chance.

    Also called the minimum detectable effect. The measured difference has no part in it, only how
    far the pairs scatter: beside "not distinguishable" it says what would have been seen.

    >>> round(detectable_difference(1.0, 10), 3), round(power(0.996, 1.0, 10), 3)
    (0.996, 0.8)

    Raises:
        ValueError: as ``power``; a chance outside (alpha, 1).
    """
    nothing = power(0.0, deviation, n_seeds, alpha)
    if not nothing < chance < 1:
        raise ValueError(f"expected a chance between alpha = {alpha} and 1, got {chance}")

    def lacking(effect: float) -> float:
        return chance - power(effect, 1.0, n_seeds, alpha)

    most = 1.0
    while lacking(most) > 0:
        most *= 2
    return deviation * float(optimize.brentq(lacking, 0.0, most))


def seeds_needed(
    difference: float, deviation: float, *, alpha: float = 0.05, chance: float = 0.8
) -> int | None:
    """The fewest seeds that tell a true ``difference`` with the given chance, as Cohen's 0.8.

    None if even MOST_SEEDS do not: nobody would pay for telling the two apart. A difference and a
    deviation measured on few seeds are rough themselves, and so is the answer: plan with more, for
    the smallest difference that would matter rather than for the one that was measured.

    >>> seeds_needed(1.0, 1.0), seeds_needed(0.5, 1.0), seeds_needed(0.0, 1.0)
    (10, 34, None)

    Raises:
        ValueError: a negative deviation, alpha or chance outside (0, 1).
    """
    _check_alpha(alpha)
    if not 0 < chance < 1 or deviation < 0:
        got = f"got {chance} and {deviation}"
        raise ValueError(f"expected a chance between 0 and 1 and a deviation of at least 0, {got}")
    if difference == 0:
        return None
    if abs(difference) > 1e4 * deviation:
        return 2
    seeds = range(2, MOST_SEEDS + 1)
    place = bisect_left(seeds, chance, key=lambda n: power(difference, deviation, n, alpha))
    return seeds[place] if place < len(seeds) else None


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
