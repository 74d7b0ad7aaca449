"""Chapter 20, comparison: one training run of a variant, from its settings to its curves.

Every variant is trained on the same batches in the same order, whatever its parts: a batch is a
function of the seed and the step. So two variants with one seed are a pair.
"""

import statistics
from typing import Any

from llmtutor.data.batches import batch_at
from llmtutor.data.corpora import load_corpus
from llmtutor.experiments.curve import LOST, loss_on, rounded, spread_windows, train_curve
from llmtutor.experiments.training import tokens
from llmtutor.experiments.variants import (
    BATCH_SIZE,
    SEQ_LEN,
    VARIANTS,
    VOCAB_SIZE,
    build_variant,
    zero_first_head,
)
from llmtutor.model.accounting import parameters
from llmtutor.optim.schedules import warmup_cosine

STEPS = 600
WARMUP = 30
EVAL_EVERY = 50
CURVE_WINDOWS = 128
"""Validation windows of SEQ_LEN tokens for a point of a curve."""
FINAL_WINDOWS = 1024
"""Validation windows for the final loss: 65,536 tokens, the same for every run on a corpus."""


def train_variant(
    *, variant: str, corpus: str, lr: float, seed: int, steps: int = STEPS, device: str = "cpu"
) -> dict[str, Any]:
    """Train a variant once and report its size, its curves and its final validation loss.

    ``curve`` has the training loss as the mean of every ten steps, ``valid`` the loss on
    CURVE_WINDOWS after every EVAL_EVERY. A run that diverges ends there, without a final loss.

    Raises:
        ValueError: an unknown variant or corpus.
    """
    train, valid, _ = tokens(VOCAB_SIZE, corpus)
    model = build_variant(variant, seed)
    curve = train_curve(
        model,
        (batch_at(train, BATCH_SIZE, SEQ_LEN, seed=seed, step=step) for step in range(steps)),
        steps=steps,
        lr=lr,
        schedule=warmup_cosine(steps, WARMUP),
        held_out=lambda: spread_windows(valid, CURVE_WINDOWS, SEQ_LEN),
        marks=range(EVAL_EVERY, steps + 1, EVAL_EVERY),
        device=device,
    )
    if VARIANTS[variant].zeroed_head == "evaluation":
        zero_first_head(model)
    final = loss_on(model, spread_windows(valid, FINAL_WINDOWS, SEQ_LEN))
    bytes_per_token = len(load_corpus(corpus).valid.encode()) / len(valid)
    tens = range(0, len(curve.losses) // 10 * 10, 10)
    return {
        "n_params": parameters(model.config).total,
        "steps": steps,
        "n_tokens": steps * BATCH_SIZE * SEQ_LEN,
        **(LOST if curve.diverged else rounded(final, final.n_tokens * bytes_per_token)),
        "curve": {
            "step": [i + 10 for i in tens],
            "loss": [round(statistics.mean(curve.losses[i : i + 10]), 4) for i in tens],
        },
        "valid": {
            "step": list(curve.marks),
            "loss": [round(loss, 4) for loss in curve.marks.values()],
        },
    }
