"""Chapter 20, comparison: its studies, and what all their runs say together."""

from collections.abc import Mapping
from typing import Any

from llmtutor.evaluate.compare import Comparison, compare_family, seeds_needed
from llmtutor.experiments.cost import measure_variant
from llmtutor.experiments.scaling import best_learning_rate
from llmtutor.experiments.study import Record, Study, load_record
from llmtutor.experiments.trial import train_variant
from llmtutor.experiments.variants import VARIANTS

CORPORA = ("shakespeare", "tinystories-sample")
RATES = (0.004, 0.008, 0.016, 0.032)
RATE_SEED = 100  # none of the comparison's own
SEEDS = 8
ROUNDS = 5  # through all variants: a busy moment of the machine falls on none alone
HEAD_CHANCE = 0.9
"""With which ``comparison-head`` is to tell a difference as large as the one measured before."""
FRESH_SEED = 200
"""The first of its seeds, none of which was seen before."""


def best_rate(record: Record, variant: str) -> float:
    """The minimum of the parabola through the best rate tried and its neighbours.

    A best rate at an end of those tried is taken as it is; one at which training diverged is none.

    Raises:
        ValueError: no recorded run of the variant has a final loss.
    """
    found = {
        run["settings"]["lr"]: run["result"]["valid_loss"]
        for run in record.runs
        if run["settings"]["variant"] == variant and run["result"]["valid_loss"] is not None
    }
    if not found:
        raise ValueError(
            f"no learning rate was tried for variant {variant!r}: make these runs first, "
            f"`llmtutor experiment run {record.study}`"
        )
    best = min(found, key=found.__getitem__)
    if best in (min(found), max(found)):
        return best
    return round(best_learning_rate(found), 5)


def losses(record: Record, corpus: str) -> dict[str, dict[int, float]]:
    """Final validation losses by variant and seed, in the order of VARIANTS.

    A variant without all seeds of the baseline is left out: runs are to be made, or one diverged.
    """
    found: dict[str, dict[int, float]] = {name: {} for name in VARIANTS}
    for run in record.runs:
        settings, loss = run["settings"], run["result"]["valid_loss"]
        if settings["corpus"] == corpus and settings["variant"] in found and loss is not None:
            found[settings["variant"]][settings["seed"]] = loss
    seeds = sorted(found["baseline"])
    return {
        name: {seed: by_seed[seed] for seed in seeds}
        for name, by_seed in found.items()
        if seeds and sorted(by_seed) == seeds
    }


def verdicts(record: Record, corpus: str) -> dict[str, Comparison]:
    """Every other variant against the baseline on one corpus, one family for Holm's correction."""
    by_variant = losses(record, corpus)
    baseline = by_variant.pop("baseline")
    return compare_family(by_variant, baseline)


def _plan_comparison(written: Mapping[str, Any]) -> dict[str, Any]:
    """A learning rate for each variant that has none yet."""
    new = [name for name in VARIANTS if name not in written.get("learning_rate", {})]
    if not new:
        return {}
    record = load_record("comparison-rates")
    return {"learning_rate": {n: best_rate(record, VARIANTS[n].rate_of or n) for n in new}}


def _plan_head() -> dict[str, Any]:
    record = load_record("comparison")
    found = verdicts(record, CORPORA[0])["head lost"]
    return {
        "difference": found.difference,
        "deviation": found.deviation,
        "n_seeds": seeds_needed(found.difference, found.deviation, chance=HEAD_CHANCE),
        "learning_rate": record.plan["learning_rate"]["baseline"],
    }


COMPARISON = (
    Study(
        name="comparison-rates",
        description="A learning rate for each variant of the comparison",
        runs=lambda plan: [
            {"variant": name, "corpus": CORPORA[0], "lr": lr, "seed": RATE_SEED}
            for name, variant in VARIANTS.items()
            for lr in RATES
            if variant.rate_of is None
        ],
        run=train_variant,
    ),
    Study(
        name="comparison",
        description="Variants against one baseline: paired seeds, equal parameters, two corpora",
        plan=_plan_comparison,
        runs=lambda plan: [
            {"variant": name, "corpus": corpus, "lr": plan["learning_rate"][name], "seed": seed}
            for seed in range(SEEDS)
            for name in VARIANTS
            for corpus in CORPORA
        ],
        run=train_variant,
    ),
    Study(
        name="comparison-cost",
        description="What each variant costs: training and decoding speed, memory, cache",
        runs=lambda plan: [{"variant": v, "round": i} for i in range(ROUNDS) for v in VARIANTS],
        run=measure_variant,
    ),
    Study(
        name="comparison-head",
        description="One lost head again, on Shakespeare, with new seeds and as many as it takes",
        plan=lambda written: {} if written else _plan_head(),
        runs=lambda plan: [
            {"variant": name, "corpus": CORPORA[0], "lr": plan["learning_rate"], "seed": seed}
            for seed in range(FRESH_SEED, FRESH_SEED + plan["n_seeds"])
            for name in ("baseline", "head lost")
        ],
        run=train_variant,
    ),
)
