"""Chapter 16, efficient-attention: what looking at less costs, at equal size.

Four models that differ in what a query may look at, trained on the same batches of Shakespeare's
characters at three learning rates each.
"""

from typing import Any

import torch

from llmtutor.data.batches import random_batches
from llmtutor.experiments.curve import spread_windows, train_curve
from llmtutor.experiments.study import Record, Study
from llmtutor.experiments.training import model_config, schedule, tokens
from llmtutor.model.accounting import cache_bytes, parameters
from llmtutor.model.presets import build

D_MODEL, N_LAYERS, SEQ_LEN = 48, 2, 128
STEPS, BATCH = 300, 8
RATES = (0.004, 0.012, 0.036)
SEEDS = 3
VALID_WINDOWS = 320
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "window": {"window": 16},
    "window and sinks": {"window": 16, "sinks": True},
    "window and compressed blocks": {
        "mixer": "blockwise-linformer",
        "window": 16,
        "block": 8,
        "compressed": 2,
    },
}


def windows_run(*, variant: str, lr: float, seed: int) -> dict[str, Any]:
    """Train once; the held-out loss in nats a character, and the bytes of a cache in float32."""
    train, valid, vocab_size = tokens()
    config = model_config(D_MODEL, N_LAYERS, vocab_size, max_seq_len=SEQ_LEN, **VARIANTS[variant])
    torch.manual_seed(seed)
    model = build(config)
    curve = train_curve(
        model,
        random_batches(train, BATCH, SEQ_LEN, generator=torch.Generator().manual_seed(seed)),
        steps=STEPS,
        lr=lr,
        schedule=schedule(STEPS),
        held_out=lambda: spread_windows(valid, VALID_WINDOWS, SEQ_LEN),
        marks=(STEPS,),
    )
    return {
        "valid_loss": None if curve.diverged else round(curve.marks[STEPS], 5),
        "n_params": parameters(config).total,
        "cache_bytes": cache_bytes(config, 1, SEQ_LEN),
    }


def losses(record: Record, variant: str, lr: float) -> dict[int, float]:
    """By seed."""
    return {
        seed: record.results(variant=variant, lr=lr, seed=seed)[0]["valid_loss"]
        for seed in range(SEEDS)
    }


def best_rate(record: Record, variant: str) -> float:
    """The rate with the lowest mean loss."""
    return min(RATES, key=lambda lr: sum(losses(record, variant, lr).values()))


WINDOWS = Study(
    name="windows",
    description="Full attention, a window, with sinks and with compressed blocks, at equal size",
    runs=lambda plan: [
        {"variant": variant, "lr": lr, "seed": seed}
        for seed in range(SEEDS)
        for variant in VARIANTS
        for lr in RATES
    ],
    run=windows_run,
)
