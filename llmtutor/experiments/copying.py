"""Chapter 17, differential: symbols that lie among noise are written again, in their order.

A second task with much that does not matter, for two blocks that know positions. The layers are
those of ``needle``, at equal parameters, and so is the way in which rates are chosen.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.needle import (
    N_HEADS,
    RATE_SEED,
    SEEDS,
    VARIANTS,
    Answers,
    best_rates,
)
from llmtutor.experiments.study import Study, load_record
from llmtutor.layers.basic import cross_entropy
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer
from llmtutor.optim.schedules import warmup_cosine

SYMBOLS, JUNK = 32, 64
COPIED, BETWEEN = 8, 24
"""Symbols in a text, all different, and tokens of junk among them."""
STEPS, BATCH = 400, 32
TEXTS = 256
RATES = (0.0015, 0.003, 0.006, 0.012, 0.024)
COMPARED = ("attention", "differential", "differential-v2")
INIT = "glorot"
"""The start from which plain attention learns this kind of task sooner (study ``needle``)."""


def model_config(variant: str) -> ModelConfig:
    """Two blocks with RoPE."""
    mixer, d_ff = VARIANTS[variant]
    return ModelConfig.uniform(
        SYMBOLS + 1 + JUNK,
        2 * COPIED + BETWEEN,
        n_layers=2,
        d_model=64,
        n_heads=N_HEADS,
        d_ff=d_ff,
        mixer=mixer,
        position="rope",
        tie_weights=False,
        init=INIT,
    )


def texts(
    batch: int, generator: torch.Generator
) -> tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch copied"]]:
    """Symbols among junk, a mark, all symbols but the last; and the symbols that have to come."""
    symbols = torch.rand(batch, SYMBOLS, generator=generator).argsort(1)[:, :COPIED]
    ids = SYMBOLS + 1 + torch.randint(JUNK, (batch, COPIED + BETWEEN), generator=generator)
    places = torch.rand(batch, COPIED + BETWEEN, generator=generator).argsort(1)[:, :COPIED]
    ids.scatter_(1, places.sort(1).values, symbols)
    mark = torch.full((batch, 1), SYMBOLS)
    return torch.cat((ids, mark, symbols[:, :-1]), dim=1), symbols


def copying_run(*, variant: str, lr: float, seed: int) -> dict[str, Any]:
    """Train once; loss and share of right symbols on texts that are not trained on."""
    torch.manual_seed(seed)
    model = Answers(Transformer(model_config(variant)), COPIED)
    generator = torch.Generator().manual_seed(seed)
    batches: Iterator = (texts(BATCH, generator) for _ in range(STEPS))
    schedule = warmup_cosine(STEPS, STEPS // 10, 0.1)
    train_curve(model, batches, steps=STEPS, lr=lr, schedule=schedule)
    ids, symbols = texts(TEXTS, torch.Generator().manual_seed(1_000_000))
    with torch.no_grad():
        logits = model(ids)
    return {
        "n_params": parameters(model.model.config).total,
        "loss": round(float(cross_entropy(logits, symbols)), 5),
        "right": round(float((logits.argmax(-1) == symbols).double().mean()), 4),
    }


def _plan(written: Mapping[str, Any]) -> dict[str, Any]:
    return {} if written else {"lr": best_rates(load_record("copying-rates"), COMPARED)}


COPYING = (
    Study(
        name="copying-rates",
        description="A learning rate for each layer that copies symbols out of noise",
        runs=lambda plan: [
            {"variant": variant, "lr": lr, "seed": RATE_SEED}
            for variant, lr in product(COMPARED, RATES)
        ],
        run=copying_run,
    ),
    Study(
        name="copying",
        description="Symbols copied out of noise: differential attention and plain attention",
        plan=_plan,
        runs=lambda plan: [
            {"variant": variant, "lr": plan["lr"][variant], "seed": seed}
            for seed, variant in product(range(SEEDS), COMPARED)
        ],
        run=copying_run,
    ),
)
