"""Chapter 20, comparison: many options against one baseline, with one measure of scatter for all.

Five pairs of runs say little about how far pairs scatter, and so a t-test of these alone asks for
four times the noise and more. Thirty options that scatter alike say it well, together: a loss is an
option's share plus a seed's share plus noise, and the noise is estimated from all runs (the two-way
layout of the analysis of variance; Fisher 1935, The Design of Experiments).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy import stats

from llmtutor.checks import check_number
from llmtutor.evaluate.compare import Verdict, holm

LOUD = 0.01
"""An option that scatters more than the others by an F test at this level is judged by its own."""
FEWEST_OF_ITS_OWN = 4
"""With fewer runs than these it is not: two that lie close together by luck would make an option
sure of itself, two that do not would make it unsure of anything."""


@dataclass(frozen=True)
class Gap:
    """What the runs say about an option and the baseline."""

    difference: float
    """Loss of the option minus the baseline's, over the seeds that there are."""
    error: float
    """Standard error of the difference."""
    degrees: float
    """Degrees of freedom of that error."""
    loud: bool
    """Whether it scatters more than the others: then ``error`` and ``degrees`` are Welch's, from
    its own runs, and the noise of the others is without it."""
    n_seeds: int
    """Runs of the option."""
    family: int
    """Options compared at once."""
    adjusted_p: float
    """Of "there is no difference", by Holm over the family."""
    alpha: float
    """Chance of a verdict where there is no difference, in the whole family."""

    @property
    def p_value(self) -> float:
        """Of "there is no difference", two-sided, as if this option stood alone."""
        return 2 * float(stats.t.sf(abs(self.difference) / self.error, self.degrees))

    @property
    def interval(self) -> tuple[float, float]:
        """Holds the true difference in a part 1 − alpha of all studies, for this option alone."""
        reach = float(stats.t.isf(self.alpha / 2, self.degrees)) * self.error
        return self.difference - reach, self.difference + reach

    @property
    def verdict(self) -> Verdict:
        """By ``adjusted_p``: an interval, which knows nothing of the family, may look surer."""
        if self.adjusted_p >= self.alpha:
            return "not distinguishable"
        return "better" if self.difference < 0 else "worse"

    @property
    def detectable(self) -> float:
        """The smallest true difference that gets a verdict in four studies of five, about.

        With alpha divided by the family, which is enough in any order of Holm's correction.
        """
        bound = stats.t.isf(self.alpha / 2 / self.family, self.degrees)
        return float(bound + stats.t.isf(0.2, self.degrees)) * self.error

    def equal_p(self, margin: float) -> float:
        """Of "the true difference is ``margin`` or more, on one side or the other".

        Two one-sided tests, of which the larger p counts (Schuirmann 1987): below 5 % just when the
        90 % interval lies between −margin and margin.

        Raises:
            ValueError: a margin that is not above 0.
        """
        check_number("margin", margin, above=0)
        return float(stats.t.sf((margin - abs(self.difference)) / self.error, self.degrees))


def compare_all(
    losses: Mapping[str, Mapping[int, float]], baseline: Collection[str], *, alpha: float = 0.05
) -> dict[str, Gap]:
    """Every option's gap to the baseline, from losses by option and seed.

    ``baseline`` names the rows of one and the same model, which stand for it together. Seeds may be
    missing here and there.

    >>> found = compare_all({"a": {0: 1.0, 1: 1.2, 2: 1.1}, "b": {0: 2.0, 1: 2.1, 2: 2.2}}, ["a"])
    >>> round(found["b"].difference, 3), round(found["b"].error, 4), found["b"].degrees
    (1.0, 0.0577, 2.0)

    Raises:
        ValueError: no option, no runs of the baseline, a loss that is not finite, or so few runs
            that nothing shows how they scatter.
    """
    names = [name for name in losses if name not in baseline]
    if not names or not any(losses.get(name) for name in baseline):
        raise ValueError(
            f"expected runs of the baseline ({', '.join(baseline)}) and of an option beside it, "
            f"got {sorted(losses)}"
        )
    design, values, who = _equations(losses, names)
    fitted, _, rank, _ = np.linalg.lstsq(design, values)
    degrees = len(values) - int(rank)
    residuals = values - design @ fitted
    if degrees < 1 or not np.abs(residuals).max() > 1e-12 * np.abs(values).max():
        raise ValueError(
            f"{len(values)} runs of {len(losses)} rows show no scatter: make more, with other seeds"
        )
    errors = _errors(residuals, who, degrees, np.linalg.pinv(design.T @ design))
    found = {
        name: Gap(float(fitted[i]), *errors[i], len(losses[name]), len(names), 1.0, alpha)
        for i, name in enumerate(names)
    }
    adjusted = holm([gap.p_value for gap in found.values()])
    pairs = zip(found.items(), adjusted, strict=True)
    return {name: replace(gap, adjusted_p=p) for (name, gap), p in pairs}


def _equations(
    losses: Mapping[str, Mapping[int, float]], names: list[str]
) -> tuple[Float[Array, "runs shares"], Float[Array, "runs"], Array]:
    """A row a run: which option, which seed; the loss; and the option's place, −1 the baseline."""
    runs = [(name, seed) for name, by_seed in losses.items() for seed in sorted(by_seed)]
    seeds = sorted({seed for _, seed in runs})
    design = np.zeros((len(runs), len(names) + len(seeds)))
    who = np.array([names.index(name) if name in names else -1 for name, _ in runs])
    for row, ((name, seed), place) in enumerate(zip(runs, who, strict=True)):
        if not math.isfinite(losses[name][seed]):
            raise ValueError(f"{name}: the loss of seed {seed} is {losses[name][seed]}; left out?")
        if place >= 0:
            design[row, place] = 1
        design[row, len(names) + seeds.index(seed)] = 1
    return design, np.array([losses[name][seed] for name, seed in runs]), who


def _errors(
    residuals: Float[Array, "runs"], who: Array, degrees: int, spread: Float[Array, "shares shares"]
) -> list[tuple[float, float, bool]]:
    """Of each option: the standard error, its degrees of freedom, and whether it is loud."""
    rows = [residuals[who == i] for i in range(max(who) + 1)]
    squares, total = [float(row @ row) for row in rows], float(residuals @ residuals)
    loud = {i for i, row in enumerate(rows) if _is_loud(squares[i], len(row) - 1, total, degrees)}
    quiet = degrees - sum(len(rows[i]) - 1 for i in loud)
    if quiet < 1:  # nothing is left to call the others quiet by
        loud, quiet = set(), degrees
    noise = (total - sum(squares[i] for i in loud)) / quiet
    found = []
    for i, row in enumerate(rows):
        n = len(row)
        own = (squares[i] / (n - 1) if i in loud else noise) / n
        others, freedom = noise * (float(spread[i, i]) - 1 / n), float(quiet)
        if i in loud:  # Welch's
            freedom = (own + others) ** 2 / (own**2 / (n - 1) + others**2 / quiet)
        found.append((math.sqrt(own + others), freedom, i in loud))
    return found


def _is_loud(squares: float, degrees: int, total: float, of_all: int) -> bool:
    """Whether a row scatters more than all others together, by an F test."""
    rest = of_all - degrees
    if degrees + 1 < FEWEST_OF_ITS_OWN or rest < 1 or total <= squares:
        return False
    return bool(stats.f.sf(squares / degrees / ((total - squares) / rest), degrees, rest) < LOUD)
