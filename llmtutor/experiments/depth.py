"""Chapter 07, norms: stacks of 2 to 16 blocks, with the norms in five places; norms of queries.

Every placement is trained at every depth with a learning rate of its own, found by halving and
doubling. Then a second question: how high may the rate be with a norm on queries and keys, and
without?
"""

from collections.abc import Mapping
from itertools import product
from math import inf
from typing import Any

import torch
from torch import nn

from llmtutor.checks import check_name
from llmtutor.data.batches import random_batches
from llmtutor.experiments.curve import spread_windows, train_curve
from llmtutor.experiments.rates import search
from llmtutor.experiments.study import Study, load_record
from llmtutor.experiments.training import SEQ_LEN, model_config, schedule, tokens
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

PLACEMENTS = ("pre", "post", "res-post", "sandwich", "none")
"""``none`` is a stack without any norm, the last one included."""
DEPTHS = (2, 4, 8, 16)
D_MODEL, N_HEADS = 32, 4
BATCH, STEPS, WINDOWS = 16, 600, 400
START = 0.004
"""Where the search for a rate begins."""
TUNING_SEED, SEEDS = 100, 5

QK_LAYERS, QK_WIDTH = 4, 48
QK_RATES = (0.004, 0.008, 0.016, 0.032, 0.064, 0.128)


def stack(placement: str, n_layers: int, vocab_size: int) -> Transformer:
    """A model with the norms in one of PLACEMENTS.

    Its feed-forward parts have no gate: a product of two projections, which grows with the square
    of its input, overflows in a deep stack without norms before a first step is made.
    """
    check_name("placement", placement, PLACEMENTS)
    config = model_config(D_MODEL, n_layers, vocab_size, n_heads=N_HEADS)
    config = config.replace(ffn="gelu", d_ff=4 * D_MODEL)
    if placement != "none":
        return build(config.replace(norm_placement=placement))
    model = build(config)
    for block in model.blocks:
        block.norm_1, block.norm_2 = nn.Identity(), nn.Identity()
    model.norm = nn.Identity()
    return model


def trained(model: Transformer, lr: float, seed: int) -> dict[str, Any]:
    """The held-out loss (None if the run diverged) and the largest norm of a gradient."""
    train, valid, _ = tokens()
    generator = torch.Generator().manual_seed(seed)
    curve = train_curve(
        model,
        random_batches(train, BATCH, SEQ_LEN, generator=generator),
        steps=STEPS,
        lr=lr,
        schedule=schedule(STEPS),
        held_out=lambda: spread_windows(valid, WINDOWS, SEQ_LEN),
        marks=(STEPS,),
    )
    loss = None if curve.diverged else round(curve.marks[STEPS], 5)
    return {"valid_loss": loss, "grad_norm": round(max(curve.grad_norms, default=0.0), 3)}


def depth_run(*, placement: str, n_layers: int, lr: float, seed: int) -> dict[str, Any]:
    """Train one stack."""
    _, _, vocab_size = tokens()
    torch.manual_seed(seed)
    return trained(stack(placement, n_layers, vocab_size), lr, seed)


def search_run(*, placement: str, n_layers: int, seed: int) -> dict[str, Any]:
    """The rates that were tried for one stack, and its best."""

    def loss_at(lr: float) -> float:
        loss = depth_run(placement=placement, n_layers=n_layers, lr=lr, seed=seed)["valid_loss"]
        return inf if loss is None else float(loss)

    losses = search(loss_at, START)
    kept = {str(lr): None if loss == inf else loss for lr, loss in losses.items()}
    return {"lr": min(losses, key=losses.__getitem__), "losses": kept}


def qk_run(*, qk_norm: bool, lr: float, seed: int) -> dict[str, Any]:
    """Train with or without a norm on queries and keys."""
    _, _, vocab_size = tokens()
    config = model_config(QK_WIDTH, QK_LAYERS, vocab_size, n_heads=N_HEADS)
    torch.manual_seed(seed)
    model = build(config.replace(qk_norm="rmsnorm") if qk_norm else config)
    return trained(model, lr, seed)


def _plan(written: Mapping[str, Any]) -> dict[str, Any]:
    if written:
        return {}
    record = load_record("depth-rates")
    return {
        "lr": {
            placement: {
                str(n): record.results(placement=placement, n_layers=n)[0]["lr"] for n in DEPTHS
            }
            for placement in PLACEMENTS
        }
    }


DEPTH = (
    Study(
        name="depth-rates",
        description="Norms in five places, 2 to 16 blocks: a learning rate for each stack",
        runs=lambda plan: [
            {"placement": placement, "n_layers": n, "seed": TUNING_SEED}
            for n, placement in product(DEPTHS, PLACEMENTS)
        ],
        run=search_run,
    ),
    Study(
        name="depth",
        description="Norms in five places, 2 to 16 blocks, each stack at its own learning rate",
        plan=_plan,
        runs=lambda plan: [
            {"placement": placement, "n_layers": n, "lr": plan["lr"][placement][str(n)]}
            | {"seed": seed}
            for seed, n, placement in product(range(SEEDS), DEPTHS, PLACEMENTS)
        ],
        run=depth_run,
    ),
    Study(
        name="qk-norm",
        description="Loss against the learning rate with norms of queries and keys, and without",
        runs=lambda plan: [
            {"qk_norm": qk_norm, "lr": lr, "seed": seed}
            for seed, lr, qk_norm in product(range(SEEDS), QK_RATES, (False, True))
        ],
        run=qk_run,
    ),
)
