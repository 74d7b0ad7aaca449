"""The model so far, every chapter from 03 on: the studies of its staircase, and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmtutor.evaluate.compare import compare, t_interval
from llmtutor.experiments.climbing import staircase_run, tune_run
from llmtutor.experiments.rungs import RUNGS
from llmtutor.experiments.scaling import best_learning_rate
from llmtutor.experiments.study import Record, Study, load_record, record_path

RATE_SEED = 100  # none of the staircase's own
SEEDS = 3
RATES_STUDY = "staircase-rates"
TRAINED = [name for name, rung in RUNGS.items() if rung.build is not None]


@dataclass(frozen=True)
class Step:
    """A rung as it came out."""

    rung: str
    bits_per_byte: float
    """Mean over the seeds."""
    interval: tuple[float, float]
    """95 % by Student's t, of the mean; a count has no chance in it and an interval of no width."""
    gain: float
    """Bits per byte below the rung before; 0 for the first."""
    gain_interval: tuple[float, float]
    """95 %, over pairs of the same seed."""
    sample: str
    """What the first seed writes."""
    n_params: int
    bytes_seen: int
    cpu_seconds: float
    """Of one run, the mean."""

    @property
    def better(self) -> bool:
        """Whether it is below the rung before by more than chance."""
        return self.gain_interval[0] > 0


def steps(record: Record) -> list[Step]:
    """The rungs that have all their seeds, from the lowest."""
    found: list[Step] = []
    before: dict[int, float] | None = None
    for rung in RUNGS:
        runs = [run for run in record.runs if run["settings"]["rung"] == rung]
        losses = {run["settings"]["seed"]: run["result"]["bits_per_byte"] for run in runs}
        if not losses or len(losses) < n_seeds(rung) or None in losses.values():
            continue
        by_seed = {seed: losses.get(seed, losses[0]) for seed in range(SEEDS)}
        gain, around = 0.0, (0.0, 0.0)
        if before is not None:
            comparison = compare(before, by_seed)
            gain, around = comparison.difference, comparison.t_interval
        values = np.array(list(by_seed.values()))
        first = next(run["result"] for run in runs if run["settings"]["seed"] == 0)
        found.append(
            Step(
                rung,
                float(values.mean()),
                t_interval(values) if rung in TRAINED else (values[0], values[0]),
                gain,
                around,
                first["sample"],
                first["n_params"],
                first["bytes_seen"],
                float(np.mean([run["cpu_seconds"] for run in runs])),
            )
        )
        before = by_seed
    return found


def n_seeds(rung: str) -> int:
    """Seeds of a rung: a count comes out the same each time."""
    return SEEDS if rung in TRAINED else 1


def tried(record: Record, rung: str) -> dict[float, float]:
    """Tuning losses by learning rate; one at which training diverged is infinite."""
    found = {
        run["settings"]["lr"]: run["result"]["bits_per_byte"]
        for run in record.runs
        if run["settings"]["rung"] == rung
    }
    return {lr: np.inf if loss is None else loss for lr, loss in sorted(found.items())}


def best_rate(losses: Mapping[float, float]) -> float | None:
    """The best of these, between two that are worse; None while it is at an end of them.

    It is the minimum of the parabola through the three (``best_learning_rate``); where one of them
    diverged there is no parabola, and it is the rate itself.
    """
    rates = sorted(losses)
    best = min(rates, key=losses.__getitem__, default=None)
    if best is None or best in (rates[0], rates[-1]):
        return None
    at = rates.index(best)
    around = {rate: losses[rate] for rate in rates[at - 1 : at + 2]}
    return round(best_learning_rate(around), 5) if np.isfinite([*around.values()]).all() else best


def _plan_rates(written: Mapping[str, Any]) -> dict[str, Any]:
    """The rates of the table, and as long as the best of them is an end, one more there."""
    planned = written.get("rates", {})
    new = {
        rung: dict.fromkeys(map(str, RUNGS[rung].rates), "in the table")
        for rung in TRAINED
        if rung not in planned
    }
    record = load_record(RATES_STUDY) if planned else None
    for rung, rates in planned.items():
        losses = tried(record, rung) if record is not None else {}
        if len(losses) == len(rates) and best_rate(losses) is None:
            low = min(losses, key=losses.__getitem__) == min(losses)
            more = min(losses) / 2 if low else 2 * max(losses)
            new[rung] = {str(round(more, 6)): "the best so far was the lowest or the highest"}
    return {"rates": new} if new else {}


def _plan_staircase(written: Mapping[str, Any]) -> dict[str, Any]:
    """The learning rates that are known by now."""
    if not record_path(RATES_STUDY).is_file():
        return {}
    record = load_record(RATES_STUDY)
    new = {}
    for rung in TRAINED:
        losses = tried(record, rung)
        whole = len(losses) == len(record.plan["rates"].get(rung, ())) > 0
        if whole and rung not in written.get("learning_rate", {}) and (lr := best_rate(losses)):
            new[rung] = lr
    return {"learning_rate": new} if new else {}


def _runs_staircase(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Counts, and the trained rungs whose learning rate is known: the others wait for theirs."""
    rates = plan.get("learning_rate", {})
    return [
        {"rung": rung, "lr": rates[rung] if rung in TRAINED else None, "seed": seed}
        for seed in range(SEEDS)
        for rung in RUNGS
        if seed < n_seeds(rung) and (rung not in TRAINED or rung in rates)
    ]


STAIRCASE = (
    Study(
        name=RATES_STUDY,
        description="A learning rate for each trained rung of the staircase, on a work of its own",
        plan=_plan_rates,
        runs=lambda plan: [
            {"rung": rung, "lr": float(lr), "seed": RATE_SEED}
            for rung in TRAINED
            for lr in plan["rates"].get(rung, ())
        ],
        run=tune_run,
    ),
    Study(
        name="staircase",
        description="One model carried through the book: bits per byte and a sample, rung by rung",
        plan=_plan_staircase,
        runs=_runs_staircase,
        run=staircase_run,
    ),
)
