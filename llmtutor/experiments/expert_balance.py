"""Chapter 18, moe: are experts used evenly, and what does it take?

Small models with eight experts, one for each token, learn Shakespeare's characters without any
balance, with the loss of Switch, and with the bias of DeepSeek-V3. Two dense models stand beside
them: one as large as what a token uses, one as large as all experts together.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from llmtutor.data.batches import random_batches, sequential_batches
from llmtutor.experiments.curve import loss_on, train_curve
from llmtutor.experiments.study import Study
from llmtutor.experiments.training import FINAL, SEQ_LEN, WARMUP, model_config, tokens
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.optim.schedules import warmup_cosine

D_MODEL, N_LAYERS, N_HEADS, D_FF, N_EXPERTS = 64, 2, 4, 64, 8
STEPS, BATCH = 250, 16
EVERY = 10
"""Steps between two recorded loads."""
RATES = (0.004, 0.008, 0.016)
"""Learning rates that are tried for each arm, on a seed of its own."""
RATE = 0.008
SEEDS, SEARCH_SEED = 3, 100
WEIGHTS, BIAS_RATES = (0.001, 0.01, 0.1), (0.001, 0.003, 0.01, 0.1)
"""Weights of the loss, and steps of the bias, that are tried."""
VALID_TOKENS = 25_600
BALANCES: Mapping[str, dict[str, float]] = {
    "none": {"balance_loss": 0.0},
    **{f"loss {w:g}": {"balance_loss": w} for w in WEIGHTS},
    **{f"bias {u:g}": {"balance_loss": 0.0, "bias_rate": u} for u in BIAS_RATES},
}
"""Settings of the layer by arm."""
DENSE: Mapping[str, int] = {"dense, equal active": D_FF, "dense, equal total": N_EXPERTS * D_FF}
"""Hidden units by arm."""
SEARCHED = ("none", "loss 0.01", "bias 0.01", *DENSE)


def config_of(arm: str) -> ModelConfig:
    """The model of an arm."""
    config = model_config(D_MODEL, N_LAYERS, tokens()[2], n_heads=N_HEADS)
    if arm in DENSE:
        return config.replace(d_ff=DENSE[arm])
    switch = {"n_experts": N_EXPERTS, "d_ff": D_FF, "top_k": 1, "normalise": False}
    return config.replace(ffn="moe", **switch, **BALANCES[arm])


def held_out() -> Iterator[Batch]:
    """The first VALID_TOKENS characters of the held-out works."""
    return sequential_batches(tokens()[1][: VALID_TOKENS + 1], 32, SEQ_LEN)


@torch.no_grad()
def held_out_loads(model: nn.Module, device: str) -> list[list[float]]:
    """Load of each expert over the held-out text, layer by layer; none of a dense model."""
    found: dict[str, list[torch.Tensor]] = {}
    for inputs, _ in held_out():
        _, extras = model(inputs.to(device), with_extras=True)
        for name, load in extras.statistics.items():
            if name.endswith("load"):
                found.setdefault(name, []).append(load.cpu())
    return [[round(x, 4) for x in torch.stack(all_).mean(0).tolist()] for all_ in found.values()]


def balance_run(*, arm: str, lr: float, seed: int, device: str = "cpu") -> dict[str, Any]:
    """Train an arm; its loss, its loads on the way and on held-out text."""
    torch.manual_seed(seed)
    model = build(config_of(arm))
    generator = torch.Generator().manual_seed(seed)
    curve = train_curve(
        model,
        random_batches(tokens()[0], BATCH, SEQ_LEN, generator=generator),
        steps=STEPS,
        lr=lr,
        schedule=warmup_cosine(STEPS, int(WARMUP * STEPS), FINAL),
        device=device,
    )
    loads = [
        [[round(x, 3) for x in load] for load in figures[::EVERY]]
        for name, figures in curve.statistics.items()
        if name.endswith("load")
    ]
    model.eval()
    return {
        "valid_loss": round(loss_on(model, held_out()).nats_per_token, 5),
        "loads": loads,
        "held_out_loads": held_out_loads(model, device),
    }


def _runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    search = [{"arm": a, "lr": lr, "seed": SEARCH_SEED} for a in SEARCHED for lr in RATES]
    return search + [
        {"arm": arm, "lr": RATE, "seed": seed}
        for seed in range(SEEDS)
        for arm in (*BALANCES, *DENSE)
    ]


MOE_BALANCE = Study(
    name="moe-balance",
    description="Experts kept in balance by nothing, by a loss, by a bias; dense models beside",
    runs=_runs,
    run=balance_run,
)
