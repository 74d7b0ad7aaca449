"""Chapter 25, linear_attention: what the runs of the recall study say, each model at its best."""

from collections.abc import Mapping

from llmtutor.evaluate.compare import Comparison, compare_pairs
from llmtutor.experiments.recall import RATES, Task
from llmtutor.experiments.study import Record


def right(
    record: Record,
    model: str,
    lr: float,
    n_keys: int,
    *,
    task: Task = "once",
    written: str = "once",
) -> dict[int, float]:
    """By seed, the share of right values of the keys that were ``written`` so often."""
    wanted = {"task": task, "model": model, "lr": lr}
    return {
        run["settings"]["seed"]: run["result"]["right"][str(n_keys)][written]
        for run in record.runs
        if run["settings"].items() >= wanted.items()
    }


def mean_right(record: Record, model: str, lr: float, seeds: int, task: Task = "once") -> float:
    """Of the first ``seeds``: the mean over numbers of keys and kinds of keys."""
    shares = [
        part[kind]
        for seed in range(seeds)
        for run in record.results(task=task, model=model, lr=lr, seed=seed)
        for part in run["right"].values()
        for kind in part.keys() - {"first"}
    ]
    return sum(shares) / len(shares)


def best_rate(record: Record, model: str, task: Task = "once") -> float:
    """Of the rates with the most seeds, the one with the best ``mean_right``."""
    rates = RATES[task][model]
    most = max(rates.values())
    tried = [lr for lr, seeds in rates.items() if seeds == most]
    return max(tried, key=lambda lr: mean_right(record, model, lr, most, task))


QUESTIONS: Mapping[str, tuple[Task, str, str, str]] = {
    "delta rule against adds": ("once", "once", "delta rule", "adds"),
    "the same, small state": ("once", "once", "delta rule, small state", "adds, small state"),
    "hybrid against delta rule, small state": (
        "once",
        "once",
        "hybrid, small state",
        "delta rule, small state",
    ),
    "delta rule against adds, changed keys": ("twice", "twice", "delta rule", "adds"),
    "the same, other keys": ("twice", "once", "delta rule", "adds"),
    "changed keys, one layer": ("twice", "twice", "delta rule, one layer", "adds, one layer"),
}
"""Task, which of its keys, and the two models, each at its best rate and with 24 keys in a text."""


def verdicts(record: Record) -> dict[str, Comparison]:
    """Shares of wrong values, seed by seed, with Holm's correction over all QUESTIONS."""
    found = {}
    for question, (task, written, *models) in QUESTIONS.items():
        mine, other = (
            right(record, model, best_rate(record, model, task), 24, task=task, written=written)
            for model in models
        )
        common = mine.keys() & other.keys()
        found[question] = {s: 1 - mine[s] for s in common}, {s: 1 - other[s] for s in common}
    return compare_pairs(found)
