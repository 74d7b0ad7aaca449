"""Chapter 10, optimizers: what the race says, from its raw records.

Losses are in bits per byte here, which in this corpus is per character.
"""

from dataclasses import replace
from math import inf, log
from statistics import mean

from llmtutor.evaluate.compare import Comparison, compare, holm
from llmtutor.experiments.curve import spread_windows
from llmtutor.experiments.racing import RULES, SCHEDULES, WINDOWS
from llmtutor.experiments.study import Record
from llmtutor.experiments.training import SEQ_LEN, tokens
from llmtutor.model.language_modelling import NGram

NAMES = {"sgd": "SGD", "momentum": "momentum", "adamw": "AdamW", "muon": "Muon"}
STEPS_UP = (("momentum", "sgd"), ("adamw", "momentum"), ("muon", "adamw"))
"""Each rule, and the one that it is held against."""
COUNTS = {"bigram": 2, "trigram": 3}


def tried(rates: Record, rule: str, plan: str = "both") -> dict[float, float]:
    """Held-out losses by learning rate, infinite where training diverged.

    For Muon those beside the best rate of the AdamW for embedding and output layer.
    """
    runs = [
        run["result"]
        for run in rates.runs
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


def by_seed(record: Record, rule: str, plan: str = "both") -> dict[int, float]:
    """Held-out losses of the tuned rule, infinite where training diverged."""
    found = {}
    for run in record.runs:
        settings, nats = run["settings"], run["result"]["valid_loss"]
        if settings["rule"] == rule and settings["plan"] == plan:
            found[settings["seed"]] = inf if nats is None else nats / log(2)
    return found


def race(record: Record) -> dict[str, Comparison]:
    """Each rule against the one before it, with Holm's correction."""
    pairs = {
        f"{NAMES[a]} − {NAMES[b]}": compare(by_seed(record, a), by_seed(record, b))
        for a, b in STEPS_UP
    }
    return _corrected(pairs)


def ablations(record: Record) -> dict[str, Comparison]:
    """Each rule without warm-up, and without decay, against itself with both; corrected."""
    pairs = {
        f"{NAMES[rule]}, {plan}": compare(by_seed(record, rule, plan), by_seed(record, rule))
        for plan in SCHEDULES[1:]
        for rule in RULES
    }
    return _corrected(pairs)


def _corrected(pairs: dict[str, Comparison]) -> dict[str, Comparison]:
    adjusted = holm([pair.p_value for pair in pairs.values()])
    return {
        name: replace(pair, adjusted_p=p)
        for (name, pair), p in zip(pairs.items(), adjusted, strict=True)
    }


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
