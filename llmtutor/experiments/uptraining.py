"""Chapter 14, gqa: what is lost when heads are merged, and how fast training brings it back.

A multi-head model is trained once for each seed. Its heads of keys and values are then merged in
three ways, those of Ainslie et al. (2023), figure 4, and each result is trained on for a tenth of
the steps. The control is the same model, not merged, trained on for as long.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from llmtutor.data.batches import random_batches, sequential_batches
from llmtutor.experiments.curve import loss_on, train_curve
from llmtutor.experiments.study import Study
from llmtutor.experiments.training import SEQ_LEN, model_config, tokens
from llmtutor.layers.attention import first_heads, mean_pool_heads
from llmtutor.model.grouping import Pool, group_heads
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.optim import Schedule
from llmtutor.optim.schedules import warmup_cosine

D_MODEL, N_LAYERS, N_HEADS = 64, 2, 8
STEPS, BATCH = 1000, 16
PEAK = 0.008
FINAL = 0.1
"""Training ends at this part of the peak, and so does uptraining."""
AGAIN = 0.5
"""The part of the peak at which uptraining begins; chosen on a seed that is not in the study."""
MARKS = (0, 10, 25, 50, 100)
"""Steps of uptraining after which the loss is taken; the last are a tenth of STEPS."""
VALID_TOKENS = 25_600
SEEDS = 3
MERGES = ((8, "mean"), (4, "mean"), (2, "mean"), (1, "mean"), (1, "first"), (1, "random"))
"""Heads of keys and values that are left, and how they are made; the first is the control."""


def random_heads(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    """New heads, drawn as large as the model's first ones were; what was learned is gone."""
    rows = mean_pool_heads(weight, n_heads, n_kv_heads)
    d_out, d_in = weight.shape
    return torch.empty_like(rows).normal_(std=(2 / (d_in + d_out)) ** 0.5)


POOLS: dict[str, Pool] = {"mean": mean_pool_heads, "first": first_heads, "random": random_heads}


def held_out() -> Iterator[Batch]:
    """The first VALID_TOKENS characters of the held-out works."""
    return sequential_batches(tokens()[1][: VALID_TOKENS + 1], 32, SEQ_LEN)


def held_out_loss(model: nn.Module) -> float:
    """Nats a character on these."""
    return loss_on(model, held_out()).nats_per_token


def train_on(
    model: Transformer, schedule: Schedule, marks: tuple[int, ...], seed: int, device: str = "cpu"
) -> dict[str, float]:
    """Train with a new AdamW to the last of ``marks``; the held-out loss at each one reached."""
    generator = torch.Generator().manual_seed(seed)
    curve = train_curve(
        model,
        random_batches(tokens()[0], BATCH, SEQ_LEN, generator=generator),
        steps=marks[-1],
        lr=PEAK,
        schedule=schedule,
        held_out=held_out,
        marks=marks,
        device=device,
    )
    return {str(step): round(loss, 5) for step, loss in curve.marks.items()}


@cache
def trained(seed: int, device: str = "cpu") -> Transformer:
    """The multi-head model of a seed, after STEPS steps; do not change it."""
    torch.manual_seed(seed)
    model = build(model_config(D_MODEL, N_LAYERS, tokens()[2], n_heads=N_HEADS))
    train_on(model, warmup_cosine(STEPS, STEPS // 20, FINAL), (STEPS,), seed, device)
    return model


def uptrain_run(*, n_kv_heads: int, pool: str, seed: int, device: str = "cpu") -> dict[str, Any]:
    """Merge the heads of the trained model and train on, on batches that all merges share."""
    before = trained(seed, device)
    torch.manual_seed(1000 + seed)  # for the new heads of "random"
    model = group_heads(before, n_kv_heads, POOLS[pool])
    losses = train_on(model, falling(MARKS[-1]), MARKS, 1000 + seed, device)
    return {"valid_loss": losses.get(str(MARKS[-1])), "losses": losses}


def falling(steps: int, start: float = AGAIN) -> Schedule:
    """From ``start`` on a line to FINAL, which step ``steps`` would have; level if it is below."""
    end = min(start, FINAL)
    return lambda step: start + (end - start) * step / steps


UPTRAINING = Study(
    name="uptraining",
    description="Heads of keys and values merged in a trained model, which is then trained on",
    runs=lambda plan: [
        {"n_kv_heads": n_kv_heads, "pool": pool, "seed": seed}
        for seed in range(SEEDS)
        for n_kv_heads, pool in MERGES
    ],
    run=uptrain_run,
)
