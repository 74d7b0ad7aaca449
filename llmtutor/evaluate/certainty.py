"""Chapter 22, evaluation: what a number of right answers says, and what it does not say.

A model was asked some questions, not all that there are. An interval says how far the share of
right answers may be from the one on all such questions; a test says whether guessing would do as
well; and two models that answered the same questions are compared question by question.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy import stats

from llmtutor.checks import check_at_least

Verdict = Literal["above chance", "below chance", "not distinguishable from chance"]
ALPHA = 0.05
AS_LIKELY = 1 + 1e-7
"""Counts whose probabilities differ by rounding are equally likely."""


def wilson(right: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Wilson's interval (1927) of a part of which ``right`` of ``n`` were seen.

    It stays within 0 and 1, and holds the truth about as often as it says for few tries too.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]

    Raises:
        ValueError: ``n`` below 1, ``right`` outside of 0 … n, alpha outside (0, 1).
    """
    check_at_least(1, n=n)
    if not 0 <= right <= n or not 0 < alpha < 1:
        raise ValueError(
            f"expected 0 <= right <= n and an alpha between 0 and 1, got {right} of {n}, {alpha}"
        )
    z2 = float(stats.norm.isf(alpha / 2)) ** 2
    centre = (right + z2 / 2) / (n + z2)
    half = math.sqrt(z2) / (n + z2) * math.sqrt(right * (n - right) / n + z2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Share:
    """A number of right answers, and of how many."""

    right: int
    n: int

    @property
    def accuracy(self) -> float:
        """The part that is right."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson's: of the part on all questions of this kind, with this one model."""
        return wilson(self.right, self.n)


def guessing(chances: Sequence[float]) -> Float[Array, "count"]:
    """The probability of each number of right answers, 0 to all, for one who guesses.

    ``chances`` are those of the single questions: one with four answers has 1/4, and a benchmark
    may hold questions of several kinds.

    >>> guessing([0.5, 0.5]).round(2).tolist()
    [0.25, 0.5, 0.25]

    Raises:
        ValueError: no questions, a chance outside (0, 1).
    """
    if not len(chances) or not all(0 < chance < 1 for chance in chances):
        raise ValueError("expected the chances of at least one question, between 0 and 1")
    whole = np.ones(1)
    for chance, n in Counter(chances).items():
        whole = np.convolve(whole, stats.binom.pmf(np.arange(n + 1), n, chance))
    return whole


def chance_p(right: int, chances: Sequence[float]) -> float:
    """How often a guess gives a number of right answers that is as unlikely as this, or more.

    The exact binomial test, two-sided, where all chances are the same.

    Raises:
        ValueError: as ``guessing``; more right answers than questions.
    """
    likely = guessing(chances)
    if not 0 <= right < len(likely):
        raise ValueError(f"expected 0 to {len(likely) - 1} right answers, got {right}")
    return min(1.0, float(likely[likely <= likely[right] * AS_LIKELY].sum()))


def against_chance(right: int, chances: Sequence[float], alpha: float = ALPHA) -> Verdict:
    """Whether so many right answers tell a model from one who guesses."""
    if chance_p(right, chances) >= alpha:
        return "not distinguishable from chance"
    return "above chance" if right > sum(chances) else "below chance"


@dataclass(frozen=True)
class Paired:
    """Two models on the same questions."""

    n: int
    """Questions."""
    only_first: int
    """Those that the first model alone has right."""
    only_second: int
    interval: tuple[float, float]
    """95 % of the difference, by resampling questions."""
    p_value: float
    """Exact, of McNemar's test: of the questions on which they differ, are half the first's?"""

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second."""
        return (self.only_first - self.only_second) / self.n

    @property
    def verdict(self) -> Literal["better", "worse", "not distinguishable"]:
        """Of the first against the second."""
        if self.p_value >= ALPHA:
            return "not distinguishable"
        return "better" if self.difference > 0 else "worse"


def compare_marks(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """The paired comparison of two models by their marks on the same questions.

    >>> one = compare_marks([True] * 9 + [False], [True] * 2 + [False] * 8)
    >>> one.difference, round(one.p_value, 3), one.verdict
    (0.7, 0.016, 'better')

    Raises:
        ValueError: not as many marks on both sides, or none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"expected the marks of both models on the same questions, got {len(first)} and "
            f"{len(second)}"
        )
    gained = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    lost = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    differences = np.array(first, dtype=float) - np.array(second, dtype=float)
    p_value = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Paired(len(first), gained, lost, resampled_ratio(differences), float(p_value))


def resampled_ratio(
    values: Float[Array, "n"],
    sizes: Float[Array, "n"] | None = None,
    *,
    alpha: float = ALPHA,
    n_draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of ``sum(values) / sum(sizes)``; without sizes, of the mean.

    Each draw takes as many questions (or texts) as there are, with replacement. Equal ones are
    counted together, so that ten thousand marks cost no more than the values that they can have.

    Raises:
        ValueError: nothing to draw from.
    """
    if not len(values):
        raise ValueError("expected at least one value to draw from, got none")
    sizes = np.ones(len(values)) if sizes is None else sizes
    kinds, counts = np.unique(np.stack([values, sizes], 1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    at_once = max(1, 1_000_000 // len(kinds))  # a million counts are held at a time
    for done in range(0, n_draws, at_once):
        draws = rng.multinomial(
            len(values), counts / len(values), size=min(at_once, n_draws - done)
        )
        top, bottom = (draws @ kinds).T
        found.append(top / bottom)
    low, high = np.quantile(np.concatenate(found), [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
