"""Chapter 20, comparison: which runs there are, and in which order.

One study, ``choosing``, with all its runs. The order is that in which they help a reader: whenever
it is stopped, what is there can be read. First the options that are asked for most, at the smallest
size, a few at a time, tuned and then seed by seed; then two seeds of the middle size; then the
other options; the largest size at last.

An option is tuned at the smallest size, on a rate grid that grows while the best is at one of its
ends. At the larger sizes only the baseline is tuned, and every option's rate moves by the same
factor as the baseline's. Whether that holds, the options in CHECKED tell.

A run of the baseline takes 45, 90 and 180 seconds of one processor core at the three sizes; the
whole takes about nine hours of it, half as long where two programs share the work.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from llmtutor.experiments.choosing.options import OPTIONS, SIZES
from llmtutor.experiments.choosing.trial import measure_option, tune_option
from llmtutor.experiments.staircase import best_rate
from llmtutor.experiments.study import Record, Study, load_record

NAME = "choosing"
RATES = (0.008, 0.016, 0.032)
RATE_SEED = 100  # none of those below
SEEDS = {"small": 5, "middle": 5, "large": 3}
EARLY = 2
"""Seeds of the middle size that come before the rest of the smallest."""
FIRST = (
    ("baseline", "baseline again", "gqa-2", "mla", "deltanet 3 : 1"),
    ("moe, equal active", "mamba", "window 3 : 1, sinks", "gpt2", "differential", "head lost"),
    ("convolution",),
)
"""Options that are tuned and compared at the smallest size before any other, set by set."""
MIDDLE = (
    "baseline",
    "baseline again",
    "gqa-2",
    "mla",
    "mamba",
    "deltanet 3 : 1",
    "moe, equal active",
    "window 3 : 1, sinks",
    "convolution",
    "gated",
    "gpt2",
    "qk-norm",
    "muon",
)
LARGE = (
    "baseline",
    "baseline again",
    "mla",
    "mamba",
    "convolution",
    "deltanet 3 : 1",
    "deltanet 3 : 1, retuned",
    "moe, equal active",
)
RETUNED = tuple(name for name, option in OPTIONS.items() if option.tuned_at != "small")
"""They come behind all others of their size."""
CHECKED = ("deltanet 3 : 1", "mamba")
"""Options that try other rates at the middle size, to see whether the one that was moved there is
still a good one."""
CHECKS = (0.5, 1.0, 2.0)
"""What their rates are multiplied by."""
TUNED = {
    size: tuple(
        name
        for name, option in OPTIONS.items()
        if name == "baseline" or (option.rate_of is None and option.tuned_at == size)
    )
    for size in SIZES
}
"""What is tuned at each size."""

Plan = Mapping[str, Any]


def run_option(*, size: str, option: str, lr: float, seed: int) -> dict[str, Any]:
    """A run of the study: to tune, by its seed, or to compare.

    Raises:
        ValueError: an unknown size or option.
    """
    make = tune_option if seed == RATE_SEED else measure_option
    return make(size=size, option=option, lr=lr, seed=seed)


def tried(record: Record, size: str, option: str) -> dict[float, float]:
    """Tuning losses by learning rate; one at which training diverged is infinite."""
    wanted = {"size": size, "option": option, "seed": RATE_SEED}
    found = {
        run["settings"]["lr"]: run["result"]["bits_per_byte"]
        for run in record.runs
        if wanted.items() <= run["settings"].items()
    }
    return {lr: np.inf if loss is None else loss for lr, loss in sorted(found.items())}


def grow_plan(written: Plan) -> dict[str, Any]:
    """The rates to try, one more where the best is at an end; the rates that are known by now."""
    rates, known = written.get("rates", {}), written.get("learning_rate", {})
    record = load_record(NAME) if written else None
    new_rates: dict[str, dict[str, Any]] = {}
    found: dict[str, dict[str, float]] = {}
    for size, options in TUNED.items():
        for option in options:
            planned = rates.get(size, {}).get(option)
            if planned is None or record is None:
                grid = dict.fromkeys(map(str, RATES), "in the table")
                new_rates.setdefault(size, {})[option] = grid
                continue
            losses = tried(record, size, option)
            if len(losses) < len(planned) or option in known.get(size, {}):
                continue
            if (best := best_rate(losses)) is not None:
                found.setdefault(size, {})[option] = best
            else:
                more = {str(beyond(losses)): "the best so far was the lowest or the highest"}
                new_rates.setdefault(size, {})[option] = more
    new_known = moved({size: known.get(size, {}) | found.get(size, {}) for size in TUNED})
    new = {
        size: {option: lr for option, lr in by_option.items() if option not in known.get(size, {})}
        for size, by_option in new_known.items()
    }
    new = {size: by_option for size, by_option in new.items() if by_option}
    return ({"rates": new_rates} if new_rates else {}) | ({"learning_rate": new} if new else {})


def beyond(losses: Mapping[float, float]) -> float:
    """The next rate to try, half the lowest or twice the highest: where the best of all is."""
    low = min(losses, key=losses.__getitem__) == min(losses)
    return round(min(losses) / 2 if low else 2 * max(losses), 6)


def moved(known: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Rates by size and option, as far as they follow from those that were tuned.

    An option's rate at the size where it is tuned, times what the baseline's best rate changed by
    from there; at a smaller size it has none.

    >>> moved({"small": {"baseline": 0.02, "mqa": 0.01}, "middle": {"baseline": 0.015}, "large": {}}
    ... )["middle"]["mqa"]
    0.0075
    """
    sizes = list(known)
    rates: dict[str, dict[str, float]] = {size: {} for size in sizes}
    for name, option in OPTIONS.items():
        source, home = option.rate_of or name, known[option.tuned_at]
        for size in sizes[sizes.index(option.tuned_at) :] if source in home else ():
            if size == option.tuned_at:
                rates[size][name] = home[source]
            elif "baseline" in known[size]:
                factor = known[size]["baseline"] / home["baseline"]
                rates[size][name] = round(home[source] * factor, 5)
    return rates


def to_tune(plan: Plan, size: str, options: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Runs that tune some options at a size."""
    for option in options:
        for lr in plan.get("rates", {}).get(size, {}).get(option, ()):
            yield {"size": size, "option": option, "lr": float(lr), "seed": RATE_SEED}


def to_compare(
    plan: Plan, size: str, options: Sequence[str], seeds: Iterable[int]
) -> Iterator[dict[str, Any]]:
    """Runs of some options whose rate is known by now, seed by seed; the others wait for theirs."""
    rates = plan.get("learning_rate", {}).get(size, {})
    for seed in seeds:
        for option in options:
            if option in rates:
                yield {"size": size, "option": option, "lr": rates[option], "seed": seed}


def to_check(plan: Plan, size: str) -> Iterator[dict[str, Any]]:
    """Runs that try rates around those that were moved to a size."""
    rates = plan.get("learning_rate", {}).get(size, {})
    for option in CHECKED:
        for factor in CHECKS if option in rates else ():
            lr = round(factor * rates[option], 5)
            yield {"size": size, "option": option, "lr": lr, "seed": RATE_SEED}


def smallest(plan: Plan, options: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Some options at the smallest size: tuned, then compared."""
    yield from to_tune(plan, "small", [name for name in options if OPTIONS[name].rate_of is None])
    yield from to_compare(plan, "small", options, range(SEEDS["small"]))


def all_runs(plan: Plan) -> list[dict[str, Any]]:
    """All that can be told by now, what helps most first."""
    rest = [n for n in OPTIONS if n not in RETUNED and not any(n in names for names in FIRST)]
    return [
        *(run for names in FIRST for run in smallest(plan, names)),
        *to_tune(plan, "middle", ("baseline",)),
        *to_compare(plan, "middle", MIDDLE, range(EARLY)),
        *smallest(plan, rest),
        *to_compare(plan, "middle", MIDDLE, range(EARLY, SEEDS["middle"])),
        *to_check(plan, "middle"),
        *to_tune(plan, "middle", RETUNED),
        *to_tune(plan, "large", TUNED["large"]),
        *to_compare(plan, "middle", RETUNED, range(SEEDS["middle"])),
        *to_compare(plan, "large", LARGE, range(SEEDS["large"])),
    ]


CHOOSING = Study(
    name=NAME,
    description="Options of an architecture against a modern block: three sizes, equal parameters, "
    "tuned rates, paired seeds",
    plan=grow_plan,
    runs=all_runs,
    run=run_option,
)
