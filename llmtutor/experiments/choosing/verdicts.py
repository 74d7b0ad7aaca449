"""Chapter 20, comparison: what the runs that are there say about each option.

All numbers are bits per byte on the held-out works, lower is better, and a gap is an option's minus
the baseline's. Where the baseline has a twin with other weights at the start, both stand for it,
and it scatters less.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmtutor.evaluate.layout import Gap, compare_all
from llmtutor.evaluate.pairs import PairScore
from llmtutor.experiments.choosing.options import OPTIONS, SIZES
from llmtutor.experiments.choosing.plan import RATE_SEED
from llmtutor.experiments.study import Record

Verdict = Literal[
    "better", "better, by little", "as good", "worse, by little", "worse", "cannot be told"
]
BASELINE, TWIN = "baseline", "baseline again"
ALPHA = 0.05
SMALL_PART = 1.25
"""A gap that this many times the compute would make up for, at the baseline, is too small to choose
by: it sets the margin."""


@dataclass(frozen=True)
class Finding:
    """What the seeds of one size say about an option."""

    gap: Gap
    """Option minus baseline; ``adjusted_p`` by Holm over all options of this size."""
    margin: float | None
    """The gap that is too small to choose by; None where it is not known yet."""

    @property
    def verdict(self) -> Verdict:
        """A difference that was told, and whether it is too small to choose by; or none that
        matters; or neither can be said."""
        match self.gap.verdict, self.within_margin:
            case "better", within:
                return "better, by little" if within else "better"
            case "worse", within:
                return "worse, by little" if within else "worse"
            case _, within:
                return "as good" if within else "cannot be told"

    @property
    def within_margin(self) -> bool:
        """Whether a gap as large as the margin is ruled out, be there a difference or not.

        By this option alone: it is the claim of a single row, not that of any row of the table.
        """
        return self.margin is not None and self.gap.equal_p(self.margin) < ALPHA


@dataclass(frozen=True)
class Point:
    """An option at one size."""

    size: str
    train_flops: float
    gap: float
    interval: tuple[float, float]
    """95 %, of the gap, by itself."""


def losses(record: Record, size: str) -> dict[str, dict[int, float]]:
    """Bits per byte by option and seed, in the order of OPTIONS; what diverged is infinite."""
    found: dict[str, dict[int, float]] = {name: {} for name in OPTIONS}
    for run in record.runs:
        settings, loss = run["settings"], run["result"]["bits_per_byte"]
        if settings["size"] == size and settings["seed"] != RATE_SEED:
            by_seed = found.setdefault(settings["option"], {})
            by_seed[settings["seed"]] = math.inf if loss is None else loss
    return {name: by_seed for name, by_seed in found.items() if by_seed}


def baseline_loss(by_option: Mapping[str, Mapping[int, float]]) -> float:
    """The baseline's mean loss, over its own runs and its twin's."""
    return float(
        np.mean([loss for n in (BASELINE, TWIN) for loss in by_option.get(n, {}).values()])
    )


def findings(record: Record, size: str) -> dict[str, Finding]:
    """Every option that has two seeds or more, the twin left out.

    An option of which a run diverged is none that could be compared, and is left out as well.
    """
    by_option = comparable(losses(record, size))
    if not by_option.keys() - {BASELINE, TWIN} or BASELINE not in by_option:
        return {}
    margin = margin_of(record, size)
    gaps = compare_all(by_option, [n for n in (BASELINE, TWIN) if n in by_option], alpha=ALPHA)
    return {name: Finding(gap, margin) for name, gap in gaps.items()}


def comparable(by_option: Mapping[str, Mapping[int, float]]) -> dict[str, Mapping[int, float]]:
    """The options of two seeds or more, all of which ended in a loss."""
    return {
        name: by_seed
        for name, by_seed in by_option.items()
        if len(by_seed) > 1 and math.inf not in by_seed.values()
    }


def diverged(record: Record, size: str) -> dict[str, int]:
    """How many runs of an option ended without a loss, where one did."""
    counted = {n: sum(map(math.isinf, s.values())) for n, s in losses(record, size).items()}
    return {name: n for name, n in counted.items() if n}


def nulls(record: Record) -> dict[str, Gap]:
    """The baseline's twin against the baseline alone, at each size: nothing but chance.

    The noise is that of all options. Sizes of fewer than two seeds are left out.
    """
    found = {}
    for size in SIZES:
        by_option = comparable(losses(record, size))
        if {BASELINE, TWIN} <= by_option.keys():
            gap = compare_all(by_option, [BASELINE], alpha=ALPHA)[TWIN]
            found[size] = replace(gap, adjusted_p=gap.p_value, family=1)
    return found


def slope(record: Record, size: str) -> float | None:
    """Bits per byte of the baseline for each factor e of training compute, at one size.

    It is that of the parabola through all sizes, since the curve flattens; the line's where there
    are two. None while there are fewer, or none of this one. It is below 0.
    """
    x, y = [], {}
    for name in SIZES:
        by_option = losses(record, name)
        if BASELINE in by_option:
            x.append(math.log(flops(record, name, BASELINE)))
            y[name] = baseline_loss(by_option)
    if len(x) < 2 or size not in y:
        return None
    slopes = np.gradient(np.array([*y.values()]), x, edge_order=1 if len(x) == 2 else 2)
    return float(slopes[[*y].index(size)])


def margin_of(record: Record, size: str) -> float | None:
    """The gap that SMALL_PART times the compute makes up for at the baseline of a size."""
    per_e = slope(record, size)
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
    found = []
    for size in SIZES:
        if (finding := findings(record, size).get(option)) is not None:
            at, gap = flops(record, size, option), finding.gap
            found.append(Point(size, at, gap.difference, gap.interval))
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
