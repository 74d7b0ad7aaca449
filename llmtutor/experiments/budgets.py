"""Chapter 12, scaling: one budget spent on models of many sizes, and text that is read again.

IsoFLOP curves (Hoffmann et al. 2022, section 3.2): for each of three budgets C = 6 N D, models of
five sizes, each with a learning rate of its own. Then one model on ever fewer different characters,
which it reads ever more often (Muennighoff et al. 2023).
"""

from collections.abc import Mapping
from functools import cache
from itertools import product
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from llmtutor.data.batches import random_batches
from llmtutor.experiments.curve import spread_windows, train_curve
from llmtutor.experiments.rates import search
from llmtutor.experiments.scaling import lowest
from llmtutor.experiments.studies import learning_rate_rule, n_params
from llmtutor.experiments.study import Record, Study, load_record
from llmtutor.experiments.training import (
    SEQ_LEN,
    VALID_WINDOWS,
    model_config,
    schedule,
    tokens,
    train_run,
)
from llmtutor.model.presets import build

BUDGETS: Mapping[str, float] = {"small": 2e10, "middle": 8e10, "large": 3.2e11}
"""Floating-point operations of a training, by 6 N D with N without the embedding."""
WIDTHS: Mapping[str, tuple[int, ...]] = {
    "small": (8, 16, 24, 32, 48),
    "middle": (8, 16, 24, 32, 48),
    "large": (16, 24, 32, 48, 64),
}
TUNING_SEED, SEEDS = 100, 3

REPEATED_WIDTH, REPEATED_STEPS, BATCH = 64, 1600, 16
EPOCHS = (1, 2, 4, 8, 16, 32)
"""How often each different character is read; 1 is a fresh text of REPEATED_STEPS batches."""
REPEATED_SEEDS = 2


def n_tokens(budget: str, d_model: int) -> int:
    """Of the training that spends the budget on a model of this width."""
    return round(BUDGETS[budget] / (6 * n_params(d_model)))


@cache
def _usual_rate(d_model: int) -> float:
    return learning_rate_rule(load_record("learning-rate"))(n_params(d_model))


def isoflop_run(*, budget: str, d_model: int, lr: float, seed: int) -> dict[str, Any]:
    """Spend one budget on one size; the curve is not kept."""
    found = train_run(d_model=d_model, n_tokens=n_tokens(budget, d_model), lr=lr, seed=seed)
    return {name: value for name, value in found.items() if name != "curve"}


def search_run(*, budget: str, d_model: int, seed: int) -> dict[str, Any]:
    """The rates tried for one size with one budget, around that of the rule, and the best."""

    def loss_at(lr: float) -> float:
        loss = isoflop_run(budget=budget, d_model=d_model, lr=lr, seed=seed)["valid_loss"]
        return inf if loss is None else float(loss)

    losses = search(loss_at, round(_usual_rate(d_model), 5))
    kept = {str(lr): None if loss == inf else loss for lr, loss in losses.items()}
    return {"lr": min(losses, key=losses.__getitem__), "losses": kept}


def losses_of(record: Record, budget: str) -> dict[int, dict[int, float]]:
    """Held-out losses of a budget by width and seed, for the seeds that all widths have by now."""
    found: dict[int, dict[int, float]] = {d: {} for d in WIDTHS[budget]}
    for run in record.runs:
        if run["settings"]["budget"] == budget:
            found[run["settings"]["d_model"]][run["settings"]["seed"]] = run["result"]["valid_loss"]
    whole = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
    return {d: {seed: by_seed[seed] for seed in whole} for d, by_seed in found.items()}


def best_sizes(record: Record, budget: str, n_sizes: int = 5) -> list[tuple[float, float]]:
    """For each seed, the best number of parameters for a budget and the loss expected there.

    By a parabola nearest to ``n_sizes`` neighbouring sizes, with the best of them in the middle as
    far as it goes.
    """
    by_width = losses_of(record, budget)
    sizes = [n_params(d) for d in by_width]
    found = []
    for seed in next(iter(by_width.values())):
        losses = [by_width[d][seed] for d in by_width]
        middle = losses.index(min(losses)) - n_sizes // 2
        first = min(max(middle, 0), len(sizes) - n_sizes)
        last = first + n_sizes
        found.append(lowest(sizes[first:last], losses[first:last]))
    return found


def growth(record: Record, n_sizes: int = 5) -> Float[np.ndarray, "seeds"]:
    """The power of the budget with which the best size grows, for each seed."""
    found = [best_sizes(record, budget, n_sizes) for budget in BUDGETS]
    sizes = [[size for size, _ in of_seeds] for of_seeds in found]
    slopes, _ = np.polyfit(np.log(list(BUDGETS.values())), np.log(sizes), 1)
    return np.asarray(slopes)


def repeated_run(*, epochs: int, lr: float, seed: int) -> dict[str, Any]:
    """Train on the first 1/epochs of a text, as many steps whatever that is."""
    train, valid, vocab_size = tokens()
    torch.manual_seed(seed)
    model = build(model_config(REPEATED_WIDTH, 2, vocab_size))
    different = REPEATED_STEPS * BATCH * SEQ_LEN // epochs
    generator = torch.Generator().manual_seed(seed)
    quarters = [REPEATED_STEPS * part // 4 for part in range(1, 5)]
    curve = train_curve(
        model,
        random_batches(train[:different], BATCH, SEQ_LEN, generator=generator),
        steps=REPEATED_STEPS,
        lr=lr,
        schedule=schedule(REPEATED_STEPS),
        held_out=lambda: spread_windows(valid, VALID_WINDOWS, SEQ_LEN),
        marks=quarters,
    )
    return {
        "different": different,
        "train_loss": round(sum(curve.losses[-100:]) / 100, 4),
        "valid_loss": round(curve.marks[REPEATED_STEPS], 5),
        "marks": {str(step): round(loss, 4) for step, loss in curve.marks.items()},
    }


def _plan(written: Mapping[str, Any]) -> dict[str, Any]:
    """The rates that the search found, for sizes that have none yet."""
    record, known = load_record("isoflop-rates"), written.get("lr", {})
    new: dict[str, dict[str, float]] = {}
    for budget, d in _points():
        found = record.results(budget=budget, d_model=d)
        if found and str(d) not in known.get(budget, {}):
            new.setdefault(budget, {})[str(d)] = found[0]["lr"]
    return {"lr": new} if new else {}


def _points() -> list[tuple[str, int]]:
    return [(budget, d) for budget in BUDGETS for d in WIDTHS[budget]]


ISOFLOP = (
    Study(
        name="isoflop-rates",
        description="Learning rates of five sizes for each of three budgets",
        runs=lambda plan: [
            {"budget": budget, "d_model": d, "seed": TUNING_SEED} for budget, d in _points()
        ],
        run=search_run,
    ),
    Study(
        name="isoflop",
        description="One budget spent on five sizes, for three budgets",
        plan=_plan,
        runs=lambda plan: [
            {"budget": budget, "d_model": d, "lr": plan["lr"][budget][str(d)], "seed": seed}
            for seed, (budget, d) in product(range(SEEDS), _points())
        ],
        run=isoflop_run,
    ),
)
REPEATED = Study(
    name="repeated",
    description="The same steps on ever less text, read ever more often",
    plan=lambda written: {} if written else {"lr": round(_usual_rate(REPEATED_WIDTH), 5)},
    runs=lambda plan: [
        {"epochs": epochs, "lr": plan["lr"], "seed": seed}
        for seed, epochs in product(range(REPEATED_SEEDS), EPOCHS)
    ],
    run=repeated_run,
)
