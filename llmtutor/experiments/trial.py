"""Chapter 20, comparison: one training run of a variant, from its settings to its curves.

Every variant is trained on the same batches in the same order, whatever its parts: a batch is a
function of the seed and the step. So two variants with one seed are a pair.
"""

import statistics
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtutor.data.batches import batch_at
from llmtutor.data.corpora import load_corpus
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.experiments.variants import (
    BATCH_SIZE,
    CLIP,
    SEQ_LEN,
    VARIANTS,
    VOCAB_SIZE,
    build_variant,
    zero_first_head,
)
from llmtutor.model.accounting import parameters
from llmtutor.optim import make_optimizer
from llmtutor.optim.schedules import warmup_cosine
from llmtutor.tokenizer import BPETokenizer
from llmtutor.train.step import train_step

STEPS = 600
WARMUP = 30
EVAL_EVERY = 50
CURVE_WINDOWS = 128
"""Validation windows of SEQ_LEN tokens for a point of a curve."""
FINAL_WINDOWS = 1024
"""Validation windows for the final loss: 65,536 tokens, the same for every run on a corpus."""


@cache
def text(corpus: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Ids for training and validation, and the bytes of a validation token on average.

    The tokens are those of a BPE tokenizer with VOCAB_SIZE of them, trained on the same text.
    """
    documents = load_corpus(corpus)
    tokenizer = BPETokenizer.train(documents.train_documents, VOCAB_SIZE)
    train, valid = (
        np.array(tokenizer.encode(part), np.uint16) for part in (documents.train, documents.valid)
    )
    return train, valid, len(documents.valid.encode()) / len(valid)


def train_variant(
    *, variant: str, corpus: str, lr: float, seed: int, steps: int = STEPS
) -> dict[str, Any]:
    """Train a variant once and report its size, its curves and its final validation loss.

    ``curve`` has the training loss as the mean of every ten steps, ``valid`` the loss on
    CURVE_WINDOWS after every EVAL_EVERY. A run that diverges (a loss that is no number) raises.

    Raises:
        ValueError: an unknown variant or corpus; ``NonFiniteLoss``.
    """
    train, valid, bytes_per_token = text(corpus)
    model = build_variant(variant, seed)
    optimizer = make_optimizer(model, "adamw", lr)
    schedule = warmup_cosine(steps, WARMUP)
    losses: list[float] = []
    points: list[tuple[int, float]] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step)
        batch = batch_at(train, BATCH_SIZE, SEQ_LEN, seed=seed, step=step)
        losses.append(train_step(model, [batch], optimizer, clip=CLIP, step=step + 1).loss)
        if (step + 1) % EVAL_EVERY == 0:
            loss = evaluate_loss(model, windows(valid, CURVE_WINDOWS)).nats_per_token
            points.append((step + 1, round(loss, 4)))
    if VARIANTS[variant].zeroed_head == "evaluation":
        zero_first_head(model)
    final = evaluate_loss(model, windows(valid, FINAL_WINDOWS))
    n_bytes = round(final.n_tokens * bytes_per_token)
    return {
        "n_params": parameters(model.config).total,
        "steps": steps,
        "n_tokens": steps * BATCH_SIZE * SEQ_LEN,
        "valid_loss": round(final.nats_per_token, 5),
        "bits_per_byte": round(final.bits_per_byte(n_bytes), 5),
        "curve": {
            "step": list(range(10, steps + 1, 10)),
            "loss": [
                round(statistics.mean(losses[i : i + 10]), 4)
                for i in range(0, steps - steps % 10, 10)
            ],
        },
        "valid": dict(zip(("step", "loss"), map(list, zip(*points, strict=True)), strict=True)),
    }


def windows(ids: np.ndarray, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``n`` windows of SEQ_LEN + 1 ids at even distances, as batches of inputs and targets."""
    starts = np.linspace(0, len(ids) - SEQ_LEN - 1, n).astype(int)
    for some in np.array_split(starts, max(1, n // 32)):
        rows = torch.from_numpy(ids[some[:, None] + np.arange(SEQ_LEN + 1)].astype(np.int64))
        yield rows[:, :-1], rows[:, 1:]
