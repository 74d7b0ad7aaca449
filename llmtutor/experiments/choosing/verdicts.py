"""Chapter 20, comparison: what the runs that are there say about each option.

All numbers are bits per byte on the held-out works, lower is better, and a gap is an option's minus
the baseline's for the same seed. Where the baseline has a twin with other weights at the start, the
mean of the two stands for it, which scatters less.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmtutor.evaluate.compare import Comparison, compare, detectable_difference, holm
from llmtutor.evaluate.equivalence import equivalence_p
from llmtutor.evaluate.pairs import PairScore
from llmtutor.experiments.choosing.options import OPTIONS, SIZES
from llmtutor.experiments.choosing.plan import RATE_SEED
from llmtutor.experiments.study import Record

Verdict = Literal["better", "worse", "as good", "cannot be told"]
BASELINE, TWIN = "baseline", "baseline again"
ALPHA = 0.05
SMALL_PART = 1.1
"""A gap that this many times the compute would make up for, at the baseline, is too small to choose
by: it sets the margin."""


@dataclass(frozen=True)
class Finding:
    """What the seeds of one size say about an option."""

    gap: Comparison
    """Option minus baseline; ``adjusted_p`` by Holm over all options of this size."""
    detectable: float
    """The smallest true gap that these seeds tell in four studies of five, with Bonferroni's alpha
    for the family."""
    equal_p: float | None
    """Of "the gap is as large as the margin", by Holm; None where there is no margin yet."""

    @property
    def verdict(self) -> Verdict:
        """A difference that was told; or none that matters; or neither can be said."""
        if self.gap.verdict != "not distinguishable":
            return self.gap.verdict
        return "as good" if self.within_margin else "cannot be told"

    @property
    def within_margin(self) -> bool:
        """Whether a gap as large as the margin is ruled out, be there a difference or not."""
        return self.equal_p is not None and self.equal_p < ALPHA


@dataclass(frozen=True)
class Point:
    """An option at one size."""

    size: str
    train_flops: float
    gap: float
    interval: tuple[float, float]
    """95 %, of the gap, by itself."""
    equal_compute: float | None
    """The gap to a baseline that is larger, and trained longer, so far that it takes as many
    operations as the option; None while the ``slope`` is not known."""


def losses(record: Record, size: str) -> dict[str, dict[int, float]]:
    """Bits per byte by option and seed, in the order of OPTIONS; what diverged is infinite."""
    found: dict[str, dict[int, float]] = {name: {} for name in OPTIONS}
    for run in record.runs:
        settings, loss = run["settings"], run["result"]["bits_per_byte"]
        if settings["size"] == size and settings["seed"] != RATE_SEED:
            by_seed = found.setdefault(settings["option"], {})
            by_seed[settings["seed"]] = math.inf if loss is None else loss
    return {name: by_seed for name, by_seed in found.items() if by_seed}


def reference(by_option: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """The baseline by seed, with its twin where there is one."""
    both = [by_option.get(name, {}) for name in (BASELINE, TWIN)]
    return {seed: float(np.mean([one[seed] for one in both if seed in one])) for seed in both[0]}


def findings(record: Record, size: str) -> dict[str, Finding]:
    """Every option that has two seeds or more beside the baseline's, the twin left out.

    An option of which a run diverged is none that could be compared, and is left out as well.
    """
    by_option = losses(record, size)
    baseline, margin = reference(by_option), margin_of(record)
    found = {}
    for name, by_seed in by_option.items():
        seeds = sorted(by_seed.keys() & baseline.keys())
        if name in (BASELINE, TWIN) or len(seeds) < 2 or math.inf in by_seed.values():
            continue
        found[name] = compare({s: by_seed[s] for s in seeds}, {s: baseline[s] for s in seeds})
    adjusted = holm([gap.p_value for gap in found.values()])
    equal = holm([equivalence_p(gap, margin) for gap in found.values()]) if margin else None
    alpha = ALPHA / max(1, len(found))
    return {
        name: Finding(
            replace(gap, adjusted_p=adjusted[i]),
            detectable_difference(gap.deviation, gap.n_seeds, alpha=alpha),
            None if equal is None else equal[i],
        )
        for i, (name, gap) in enumerate(found.items())
    }


def nulls(record: Record) -> dict[str, Comparison]:
    """The baseline's twin against the baseline alone, at each size: nothing but chance.

    They are a family of their own for Holm's correction. Sizes of fewer than two seeds are left
    out.
    """
    found = {}
    for size in SIZES:
        by_option = losses(record, size)
        one, two = (by_option.get(name, {}) for name in (TWIN, BASELINE))
        seeds = one.keys() & two.keys()
        if len(seeds) > 1:
            found[size] = compare({s: one[s] for s in seeds}, {s: two[s] for s in seeds})
    adjusted = holm([gap.p_value for gap in found.values()])
    pairs = zip(found.items(), adjusted, strict=True)
    return {size: replace(gap, adjusted_p=p) for (size, gap), p in pairs}


def slope(record: Record) -> float | None:
    """Bits per byte of the baseline for each factor e of training compute, over all sizes.

    None while there are fewer than two. It is below 0.
    """
    points = []
    for size in SIZES:
        if baseline := reference(losses(record, size)):
            points.append((math.log(flops(record, size, BASELINE)), np.mean([*baseline.values()])))
    if len(points) < 2:
        return None
    x, y = np.array(points).T
    return float(np.polyfit(x, y, 1)[0])


def margin_of(record: Record) -> float | None:
    """The gap that SMALL_PART times the compute makes up for at the baseline."""
    per_e = slope(record)
    return None if per_e is None else abs(per_e) * math.log(SMALL_PART)


def compute_factor(gap: float, per_e: float) -> float:
    """How many times the baseline's compute brings the baseline to an option's loss.

    Above 1 for an option that is better. ``per_e`` is the ``slope``.

    >>> round(compute_factor(-0.1, -0.1 / math.log(2)), 6)
    2.0
    """
    return math.exp(gap / per_e)


def flops(record: Record, size: str, option: str) -> int:
    """Operations of a training run, the same for every seed.

    Raises:
        ValueError: no such run.
    """
    for run in record.runs:
        settings = run["settings"]
        here = settings["size"] == size and settings["option"] == option
        if here and settings["seed"] != RATE_SEED:
            return int(run["result"]["train_flops"])
    raise ValueError(f"option {option!r} has no run of size {size!r} yet")


def points(record: Record, option: str) -> list[Point]:
    """The gap of an option against compute, from the smallest size that it has two seeds of."""
    found, per_e = [], slope(record)
    for size in SIZES:
        if (finding := findings(record, size).get(option)) is not None:
            at, gap = flops(record, size, option), finding.gap
            more = math.log(at / flops(record, size, BASELINE))
            equal = None if per_e is None else gap.difference - per_e * more
            found.append(Point(size, at, gap.difference, gap.t_interval, equal))
    return found


def pairs(record: Record, size: str) -> dict[str, PairScore]:
    """Minimal pairs of each option: how many of them a model gets right, its mean over seeds.

    The pairs are the same for every seed, so that more seeds do not make them more. So the interval
    is one model's, a little too wide for the mean.
    """
    found: dict[str, list[dict[str, int]]] = {}
    for run in record.runs:
        settings, result = run["settings"], run["result"]
        if settings["size"] == size and result.get("pairs") is not None:
            found.setdefault(settings["option"], []).append(result["pairs"])
    return {
        name: PairScore(round(float(np.mean([p["right"] for p in scores]))), scores[0]["n"])
        for name, scores in found.items()
    }
