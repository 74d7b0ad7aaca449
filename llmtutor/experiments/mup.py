"""Chapter 12, scaling: does a learning rate that was found in a narrow model serve a wide one?

Maximal update parametrisation, µP (Yang et al. 2022, table 8, for Adam), beside the standard one.
With ``m`` times the base width, hidden matrices learn at 1/m of the rate, and logits are divided
by m; embeddings and gains keep the rate. Initial weights are normal with variance 1 / fan_in, but
the output layer keeps its variance of the base width.
"""

import math
from itertools import product
from statistics import mean
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from llmtutor.data.batches import batch_at
from llmtutor.experiments.curve import spread_windows, train_curve
from llmtutor.experiments.study import Record, Study
from llmtutor.experiments.training import SEQ_LEN, model_config, schedule, tokens
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.optim.adamw import AdamW
from llmtutor.optim.groups import split

WIDTHS = (32, 64, 128, 256)
BASE = 32
"""The width at which both parametrisations are the same model."""
RATES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
N_LAYERS, HEAD_DIM = 2, 16
BATCH, STEPS, WINDOWS = 16, 400, 800
SEEDS = 2


class Divided(nn.Module):
    """A model whose logits are divided: ids (batch, seq) → logits (batch, seq, vocab)."""

    def __init__(self, model: Transformer, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """The logits of the model inside, divided."""
        logits: Tensor = self.model(ids)
        return logits / self.by


def model(d_model: int, vocab_size: int) -> Transformer:
    """Untied; every matrix normal with variance 1 / fan_in, the embedding with variance 1."""
    net = build(
        model_config(d_model, N_LAYERS, vocab_size, n_heads=d_model // HEAD_DIM, tie_weights=False)
    )
    for part in ("hidden", "head"):
        for weight in split(net)[part]:
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[-1]))
    nn.init.normal_(net.embedding.weight)
    return net


def parametrised(d_model: int, vocab_size: int, mup: bool) -> tuple[nn.Module, float]:
    """The model in one parametrisation, and the part of the rate at which its matrices learn."""
    net = model(d_model, vocab_size)
    if not mup:
        return net, 1.0
    times = d_model / BASE
    with torch.no_grad():
        for weight in split(net)["head"]:
            weight.mul_(math.sqrt(times))  # the variance of the base width
    return Divided(net, times), 1 / times


def mup_run(*, d_model: int, mup: bool, lr: float, seed: int) -> dict[str, Any]:
    """Train once and give the held-out loss; None if the run diverged."""
    train, valid, vocab_size = tokens()
    torch.manual_seed(seed)
    net, part = parametrised(d_model, vocab_size, mup)

    def adamw(net: nn.Module, lr: float) -> Optimizer:
        groups = split(net)
        rule = AdamW(
            [
                {"params": groups["hidden"], "lr": lr * part},
                {"params": groups["head"] + groups["rest"], "lr": lr},
            ],
            lr,
            (0.9, 0.95),
        )
        for group in rule.param_groups:
            group["initial_lr"] = group["lr"]
        return rule

    curve = train_curve(
        net,
        (batch_at(train, BATCH, SEQ_LEN, seed=seed, step=step) for step in range(STEPS)),
        steps=STEPS,
        lr=lr,
        schedule=schedule(STEPS),
        optimizer=adamw,
        held_out=lambda: spread_windows(valid, WINDOWS, SEQ_LEN),
        marks=(STEPS,),
    )
    return {"valid_loss": None if curve.diverged else round(curve.marks[STEPS], 5)}


def by_rate(record: Record, mup: bool) -> dict[int, dict[float, float]]:
    """Of one parametrisation: mean losses by width and rate; infinite if a run diverged."""
    found: dict[int, dict[float, list[float]]] = {}
    for run in record.runs:
        settings, loss = run["settings"], run["result"]["valid_loss"]
        if settings["mup"] is mup:
            at = found.setdefault(settings["d_model"], {}).setdefault(settings["lr"], [])
            at.append(math.inf if loss is None else loss)
    return {
        d: {lr: mean(losses) for lr, losses in sorted(rates.items())}
        for d, rates in sorted(found.items())
    }


def moved(d_model: int, vocab_size: int, mup: bool, step: float = 0.001) -> float:
    """How far one step of all hidden matrices moves the last residual stream, root mean square.

    Each weight of a new model goes by ``step``, or its part of it, against the sign of its
    gradient: what AdamW does in its first step.
    """
    torch.manual_seed(0)
    net, part = parametrised(d_model, vocab_size, mup)
    inner = net.model if isinstance(net, Divided) else net
    streams: list[Tensor] = []
    inner.get_submodule("norm").register_forward_pre_hook(
        lambda _, inputs: streams.append(inputs[0].detach())
    )
    ids = torch.randint(vocab_size, (8, 32), generator=torch.Generator().manual_seed(1))
    logits = net(ids).flatten(0, 1)
    nn.functional.cross_entropy(logits, ids.roll(-1, 1).flatten()).backward()
    with torch.no_grad():
        for weight in split(net)["hidden"]:
            assert weight.grad is not None
            weight -= step * part * weight.grad.sign()
        net(ids)
    before, after = streams
    return float((after - before).square().mean().sqrt())


MUP = Study(
    name="mup",
    description="The best learning rate at four widths, in standard parametrisation and in µP",
    runs=lambda plan: [
        {"d_model": d, "mup": mup, "lr": lr, "seed": seed}
        for seed, d, lr, mup in product(range(SEEDS), WIDTHS, RATES, (False, True))
    ],
    run=mup_run,
)
