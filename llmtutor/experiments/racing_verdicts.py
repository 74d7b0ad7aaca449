"""Chapter 10, optimizers: what the race says, from its raw records.

Losses are in bits per byte here, which in this corpus is per character.
"""

from collections.abc import Mapping
from math import inf, log
from statistics import mean
from typing import Any

from llmtutor.evaluate.compare import Comparison, compare_pairs
from llmtutor.experiments.curve import spread_windows
from llmtutor.experiments.racing import SCHEDULES, WINDOWS
from llmtutor.experiments.study import Record, load_record
from llmtutor.experiments.training import SEQ_LEN, tokens
from llmtutor.model.language_modelling import NGram

RACERS: Mapping[str, tuple[str, str]] = {
    "SGD, L2": ("racing", "sgd"),
    "momentum, L2": ("racing", "momentum"),
    "SGD": ("racing-undecayed", "sgd, undecayed"),
    "momentum": ("racing-undecayed", "momentum, undecayed"),
    "AdamW": ("racing", "adamw"),
    "Muon": ("racing", "muon"),
}
"""By name, the study and its rule. For SGD weight decay is L2 in the gradient."""
PAIRS = (
    ("SGD, L2", "SGD"),
    ("momentum, L2", "momentum"),
    ("momentum", "SGD"),
    ("AdamW", "momentum"),
    ("Muon", "AdamW"),
)
"""Which is held against which."""
ABLATED = ("AdamW", "Muon")
COUNTS = {"bigram": 2, "trigram": 3}


def searched(name: str, plan: str = "both") -> dict[float, float]:
    """Held-out losses of the search by learning rate, infinite where training diverged.

    For Muon those beside the best rate of the AdamW for embedding and output layer.
    """
    study, rule = RACERS[name]
    runs = [
        run["result"]
        for run in load_record(f"{study}-rates").runs
        if run["settings"]["rule"] == rule and run["settings"]["plan"] == plan
    ]
    best = min(runs, key=lambda result: result["valid_loss"])
    found = {float(lr): inf if nats is None else nats for lr, nats in best["losses"].items()}
    return {lr: nats / log(2) for lr, nats in sorted(found.items())}


def beside_muon(rates: Record, plan: str = "both") -> dict[float, float]:
    """The best loss that Muon reached, by the rate of the AdamW beside it."""
    runs = [
        run
        for run in rates.runs
        if run["settings"]["rule"] == "muon" and run["settings"]["plan"] == plan
    ]
    return {run["settings"]["adam_lr"]: run["result"]["valid_loss"] / log(2) for run in runs}


def runs_of(name: str, plan: str = "both") -> list[dict[str, Any]]:
    """The runs of the race, tuned, by seed."""
    study, rule = RACERS[name]
    runs = [
        run
        for run in load_record(study).runs
        if run["settings"]["rule"] == rule and run["settings"]["plan"] == plan
    ]
    return sorted(runs, key=lambda run: run["settings"]["seed"])


def by_seed(name: str, plan: str = "both") -> dict[int, float]:
    """Held-out losses by seed, infinite where training diverged."""
    found = {}
    for run in runs_of(name, plan):
        nats = run["result"]["valid_loss"]
        found[run["settings"]["seed"]] = inf if nats is None else nats / log(2)
    return found


def race() -> dict[str, Comparison]:
    """PAIRS, with Holm's correction."""
    return compare_pairs({f"{a} − {b}": (by_seed(a), by_seed(b)) for a, b in PAIRS})


def ablations() -> dict[str, Comparison]:
    """A rule without warm-up, and without decay, against itself with both; corrected."""
    return compare_pairs(
        {
            f"{name}, {plan}": (by_seed(name, plan), by_seed(name))
            for name in ABLATED
            for plan in SCHEDULES[1:]
        }
    )


def noise(record: Record) -> dict[int, dict[str, float]]:
    """By training step, means over the seeds: signal, noise, and their ratio in windows.

    The ratio is that of the means, as McCandlish et al. (2018) advise for noisy estimates.
    """
    found = {}
    for step in record.runs[0]["result"]["noise"]:
        parts = [run["result"]["noise"][step] for run in record.runs]
        figures = {name: mean(part[name] for part in parts) for name in ("signal", "noise")}
        found[int(step)] = {**figures, "windows": figures["noise"] / figures["signal"]}
    return found


def by_batch(record: Record) -> dict[int, dict[float, float]]:
    """Of the study ``batch-size``: losses by batch, and in it by learning rate."""
    found: dict[int, dict[float, float]] = {}
    for run in record.runs:
        settings = run["settings"]
        losses = found.setdefault(settings["batch_size"], {})
        losses[settings["lr"]] = run["result"]["valid_loss"] / log(2)
    return dict(sorted(found.items()))


def counted() -> dict[str, float]:
    """What counting reaches on the windows of the race, from the start of each window."""
    train, valid, vocab_size = tokens()
    windows = list(spread_windows(valid, WINDOWS, SEQ_LEN))
    model, found = NGram(max(COUNTS.values()), vocab_size).fit(train), {}
    for name, order in COUNTS.items():
        model.order = order
        losses = [
            model.loss([int(start[0]), *following.tolist()])
            for inputs, targets in windows
            for start, following in zip(inputs, targets, strict=True)
        ]
        found[name] = mean(losses) / log(2)
    return found
