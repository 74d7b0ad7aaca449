"""Chapter 12, scaling: its studies, some of which take their plan from what others found."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from statistics import mean
from typing import Any

import numpy as np

from llmtutor.experiments.scaling import Law, best_learning_rate, fit_law, power_law, predict
from llmtutor.experiments.study import Record, Study, load_record, record_path
from llmtutor.experiments.training import model_config, train_run
from llmtutor.model.accounting import parameters

K = 1000
LEARNING_RATES: Mapping[int, tuple[float, ...]] = {
    16: (0.008, 0.016, 0.032, 0.064, 0.128),
    40: (0.004, 0.008, 0.016, 0.032, 0.064),
    96: (0.002, 0.004, 0.008, 0.016, 0.032),
}
"""Peak learning rates tried for each width; the best one has to lie inside its row."""
BATCHES = (4, 16, 64)
BATCH_RATES = (0.004, 0.008, 0.016, 0.032)
WIDTHS = (16, 24, 32, 48, 64, 96)
TOKENS = (150 * K, 300 * K, 600 * K)
HELD_OUT: Mapping[str, int] = {"d_model": 128, "n_tokens": 800 * K}
"""1.8 times the parameters and 1.3 times the tokens of the largest run that is fitted."""
SEEDS = 2
TYING_SHAPE = {"d_model": 64, "n_tokens": 500 * K, "vocab_size": 1024}
TYING_RATES = (0.004, 0.008, 0.016, 0.032)
TYING: Mapping[str, dict[str, Any]] = {
    "untied": {"tie_weights": False, "init": "glorot"},
    "tied, output-layer start": {"tie_weights": True, "init": "glorot"},
    "tied, embedding start": {"tie_weights": True, "init": "glorot-embedding"},
}
"""The three of reference: what the one matrix starts as, when it has two uses."""


def n_params(d_model: int) -> int:
    """N of a model in these studies: its parameters without the embedding."""
    return parameters(model_config(d_model, 2, 84)).non_embedding


def means(record: Record, *names: str) -> dict[tuple[Any, ...], float]:
    """Final losses by the values of these settings, averaged over the seeds.

    Raises:
        ValueError: a run without a final loss, because it diverged; settings that leave something
            else than the seed to average over.
    """
    groups: dict[tuple[Any, ...], list[float]] = {}
    for run in record.runs:
        loss = run["result"]["valid_loss"]
        if loss is None:
            raise ValueError(f"study {record.study!r}: the run {run['settings']} diverged")
        groups.setdefault(tuple(run["settings"][name] for name in names), []).append(loss)
    apart = {str({**run["settings"], "seed": 0}) for run in record.runs}
    if len(apart) > len(groups):
        raise ValueError(
            f"study {record.study!r}: {', '.join(names)} do not tell apart all runs but for their "
            "seeds, and others have no mean"
        )
    return {key: mean(losses) for key, losses in groups.items()}


def learning_rate_rule(record: Record) -> Law:
    """Peak learning rate as a power of N, through the best one of each width."""
    losses = means(record, "d_model", "lr")
    widths = sorted({d for d, _ in losses})
    best = [
        best_learning_rate({lr: loss for (d, lr), loss in losses.items() if d == width})
        for width in widths
    ]
    return power_law([n_params(d) for d in widths], best)


def measurements(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """What a law is fitted to: rows of (N, D), and at each the mean loss over seeds."""
    losses = means(record, "d_model", "n_tokens")
    tokens = {
        (run["settings"]["d_model"], run["settings"]["n_tokens"]): run["result"]["n_tokens"]
        for run in record.runs
    }
    x = [(n_params(key[0]), tokens[key]) for key in losses]
    return np.array(x, float), np.array(list(losses.values()))


def _plan_sizes(written: Mapping[str, Any]) -> dict[str, Any]:
    """A learning rate for each width that has none yet."""
    new = [d for d in WIDTHS if str(d) not in written.get("learning_rate", {})]
    if not new:
        return {}
    rule = learning_rate_rule(load_record("learning-rate"))
    return {"learning_rate": {str(d): round(rule(n_params(d)), 5) for d in new}}


def _plan_held_out() -> dict[str, Any]:
    file = record_path("sizes").read_bytes()
    x, losses = measurements(load_record("sizes"))
    d_model, n_tokens = HELD_OUT["d_model"], HELD_OUT["n_tokens"]
    at = n_params(d_model), n_tokens // 1024 * 1024
    rule = learning_rate_rule(load_record("learning-rate"))
    return {
        "n_params": at[0],
        "n_tokens": at[1],
        "learning_rate": round(rule(at[0]), 5),
        "law": asdict(fit_law(x, losses)),
        "prediction": asdict(predict(x, losses, at)),
        "predicted": f"the mean final loss over {SEEDS} seeds",
        "sizes_sha256": hashlib.sha256(file).hexdigest(),
    }


_ALL = (
    Study(
        name="learning-rate",
        description="Loss against peak learning rate, for three widths",
        runs=lambda plan: [
            {"d_model": d, "n_tokens": 500 * K, "lr": lr, "seed": seed}
            for seed in range(2)
            for d, rates in LEARNING_RATES.items()
            for lr in rates
            if seed == 0 or d < 96  # the widest has a second seed in ``sizes``
        ],
        run=train_run,
    ),
    Study(
        name="batch-size",
        description="Loss against batch size at equal tokens, each at four learning rates",
        runs=lambda plan: [
            {"d_model": 32, "n_tokens": 250 * K, "batch_size": batch, "lr": lr, "seed": 0}
            for batch in BATCHES
            for lr in BATCH_RATES
        ],
        run=train_run,
    ),
    Study(
        name="tying",
        description="Untied and tied weights with two starts: losses and gradient norms",
        runs=lambda plan: [
            {**TYING_SHAPE, "lr": lr, "model": model, "seed": seed}
            for seed in range(3)
            for model in TYING.values()
            for lr in TYING_RATES
        ],
        run=train_run,
    ),
    Study(
        name="sizes",
        description="Loss against parameters and tokens, the learning rate tuned by size",
        plan=_plan_sizes,
        runs=lambda plan: [
            {"d_model": d, "n_tokens": n, "lr": plan["learning_rate"][str(d)], "seed": seed}
            for seed in range(SEEDS)
            for d in WIDTHS
            for n in TOKENS
        ],
        run=train_run,
    ),
    Study(
        name="held-out",
        description="A run beyond all sizes, predicted in writing before it was made",
        plan=lambda written: {} if written else _plan_held_out(),
        runs=lambda plan: [
            {**HELD_OUT, "lr": plan["learning_rate"], "seed": seed} for seed in range(SEEDS)
        ],
        run=train_run,
    ),
)
SCALING: Mapping[str, Study] = {study.name: study for study in _ALL}
