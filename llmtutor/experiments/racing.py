"""Chapter 10, optimizers: four rules, each tuned, and what warm-up and decay are worth to them.

A small Llama on Shakespeare's characters. A rule's learning rate is found by halving and doubling;
for Muon, so is the rate of the AdamW that has the embedding and the output layer. Then five seeds
of each, and each again without warm-up, and without the decay of the rate, both retuned. Last, how
noisy is the gradient of a batch, early and late?
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.data.batches import batch_at
from llmtutor.experiments.curve import in_means, spread_windows, train_curve
from llmtutor.experiments.rates import search
from llmtutor.experiments.study import Record, Study, load_record
from llmtutor.experiments.training import FINAL, SEQ_LEN, model_config, schedule, tokens
from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.optim import Schedule
from llmtutor.optim.schedules import constant, warmup_cosine

NO_DECAY: Mapping[str, Any] = {"weight_decay": 0.0}
RULES: Mapping[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "settings": {"momentum": 0.0}},
    "momentum": {"optimizer": "sgd", "settings": {"momentum": 0.9}},
    "adamw": {"optimizer": "adamw", "settings": {}},
    "muon": {"optimizer": "muon", "settings": {}},
}
UNDECAYED: Mapping[str, dict[str, Any]] = {
    f"{rule}, undecayed": {**RULES[rule], "settings": {**RULES[rule]["settings"], **NO_DECAY}}
    for rule in ("sgd", "momentum")
}
"""SGD without the decay of 0.1 that all of RULES have: through the gradient, at SGD's rates, it
shrinks a weight by up to a sixth in each step."""
STARTS: Mapping[str, float] = {
    "sgd": 0.4,
    "momentum": 0.05,
    "adamw": 0.008,
    "muon": 0.016,
    "sgd, undecayed": 1.6,
    "momentum, undecayed": 0.2,
}
"""Where the search for a rate begins."""
ADAM_RATES = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
"""Tried for the embedding and the output layer beside Muon."""
SCHEDULES = ("both", "no warm-up", "no decay")
D_MODEL, N_LAYERS, N_HEADS = 48, 3, 3
BATCH, STEPS, WINDOWS, POINTS = 16, 800, 800, 40
TUNING_SEED, SEEDS = 100, 5

NOISE_STEPS = (0, 50, 200, 800)
NOISE_BATCHES = 64
"""Batches of BATCH windows whose gradients are compared."""


def schedule_of(name: str) -> Schedule:
    """Warm-up and cosine, or one of them alone."""
    if name == "no decay":
        return constant(round(0.05 * STEPS))
    return warmup_cosine(STEPS, 0, FINAL) if name == "no warm-up" else schedule(STEPS)


def model() -> Transformer:
    """Untied, so that both the embedding and the output layer are there to be told apart."""
    _, _, vocab_size = tokens()
    return build(model_config(D_MODEL, N_LAYERS, vocab_size, n_heads=N_HEADS, tie_weights=False))


def racing_run(
    *, rule: str, lr: float, seed: int, plan: str = "both", adam_lr: float | None = None
) -> dict[str, Any]:
    """Train once; ``plan`` is one of SCHEDULES."""
    train, valid, _ = tokens()
    torch.manual_seed(seed)
    net = model()
    own = {**RULES, **UNDECAYED}[rule]
    curve = train_curve(
        net,
        (batch_at(train, BATCH, SEQ_LEN, seed=seed, step=step) for step in range(STEPS)),
        steps=STEPS,
        lr=lr,
        schedule=schedule_of(plan),
        optimizer=own["optimizer"],
        settings=own["settings"] | ({} if adam_lr is None else {"adam_lr": adam_lr}),
        held_out=lambda: spread_windows(valid, WINDOWS, SEQ_LEN),
        marks=(STEPS,),
    )
    return {
        "valid_loss": None if curve.diverged else round(curve.marks[STEPS], 5),
        "curve": in_means(curve.losses, POINTS),
    }


def search_run(
    *, rule: str, seed: int, plan: str = "both", adam_lr: float | None = None
) -> dict[str, Any]:
    """The rates that were tried, and the best."""

    def loss_at(lr: float) -> float:
        run = racing_run(rule=rule, lr=lr, seed=seed, plan=plan, adam_lr=adam_lr)
        return inf if run["valid_loss"] is None else float(run["valid_loss"])

    losses = search(loss_at, STARTS[rule])
    best = min(losses, key=losses.__getitem__)
    kept = {str(lr): None if loss == inf else loss for lr, loss in losses.items()}
    return {"lr": best, "valid_loss": losses[best], "losses": kept}


def noise_run(*, lr: float, seed: int) -> dict[str, Any]:
    """The gradient noise of a model on its way, with AdamW, at NOISE_STEPS.

    ``signal`` is the squared norm of the mean gradient over NOISE_BATCHES batches, without what
    the noise itself adds to it; ``noise`` is the sum of the variances of the gradient of one
    window. Their ratio is the batch, in windows, of McCandlish et al. (2018), equation 2.8.
    """
    train, _, _ = tokens()
    found = {}
    for steps in NOISE_STEPS:
        torch.manual_seed(seed)
        net = model()
        batches = (batch_at(train, BATCH, SEQ_LEN, seed=seed, step=step) for step in range(steps))
        if steps:
            train_curve(net, batches, steps=steps, lr=lr, schedule=schedule(STEPS))
        figures = signal_and_noise(_gradients(net, seed + 1), BATCH)
        found[str(steps)] = {name: round(value, 8) for name, value in figures.items()}
    return {"noise": found}


def _gradients(net: nn.Module, seed: int) -> Iterator[Tensor]:
    """Of NOISE_BATCHES batches that the model was not trained on in this order, each flat."""
    train, _, _ = tokens()
    for i in range(NOISE_BATCHES):
        batch = batch_at(train, BATCH, SEQ_LEN, seed=seed, step=i)
        net.zero_grad()
        (batch_losses(net, batch, torch.float32).total / batch[1].numel()).backward()
        yield torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def signal_and_noise(gradients: Iterable[Float[Tensor, " n"]], batch: int) -> dict[str, float]:
    """From gradients of batches of ``batch`` windows, as ``noise_run`` says."""
    kept = torch.stack([g.double() for g in gradients])
    of_mean, of_batch = float(kept.mean(0).square().sum()), float(kept.var(0).sum())
    return {"signal": of_mean - of_batch / len(kept), "noise": of_batch * batch}


def _plan(written: Mapping[str, Any]) -> dict[str, Any]:
    if written:
        return {}
    record = load_record("racing-rates")
    best: dict[str, dict[str, dict[str, float]]] = {}
    for rule, plan in product(RULES, SCHEDULES):
        best.setdefault(rule, {})[plan] = _best(record, rule, plan)
    return {"best": best}


def _best(record: Record, rule: str, plan: str) -> dict[str, float]:
    """The rates of the search that came lowest."""
    runs = [
        run
        for run in record.runs
        if run["settings"]["rule"] == rule and run["settings"]["plan"] == plan
    ]
    run = min(runs, key=lambda run: run["result"]["valid_loss"])
    chosen = {"lr": run["result"]["lr"]}
    if rule == "muon":
        chosen["adam_lr"] = run["settings"]["adam_lr"]
    return chosen


def _plan_undecayed(written: Mapping[str, Any]) -> dict[str, Any]:
    if written:
        return {}
    record = load_record("racing-undecayed-rates")
    return {"best": {rule: {"both": _best(record, rule, "both")} for rule in UNDECAYED}}


def _searches() -> list[dict[str, Any]]:
    searches: list[dict[str, Any]] = []
    for plan, rule in product(SCHEDULES, RULES):
        own = {"rule": rule, "plan": plan, "seed": TUNING_SEED}
        rates = [{"adam_lr": lr} for lr in ADAM_RATES] if rule == "muon" else [{}]
        searches += [{**own, **rate} for rate in rates]
    return searches


RACING = (
    Study(
        name="racing-rates",
        description="Learning rates of four optimizers, with warm-up and decay and without one",
        runs=lambda plan: _searches(),
        run=search_run,
    ),
    Study(
        name="racing",
        description="Four tuned optimizers, with warm-up and decay and without one of them",
        plan=_plan,
        runs=lambda plan: [
            {"rule": rule, "plan": part, "seed": seed, **plan["best"][rule][part]}
            for seed, part, rule in product(range(SEEDS), SCHEDULES, RULES)
        ],
        run=racing_run,
    ),
    Study(
        name="racing-undecayed-rates",
        description="Learning rates of SGD and momentum without weight decay",
        runs=lambda plan: [
            {"rule": rule, "plan": "both", "seed": TUNING_SEED}
            for rule in reversed(list(UNDECAYED))
        ],
        run=search_run,
    ),
    Study(
        name="racing-undecayed",
        description="SGD and momentum without weight decay, each at its best rate",
        plan=_plan_undecayed,
        runs=lambda plan: [
            {"rule": rule, "plan": "both", "seed": seed, **plan["best"][rule]["both"]}
            for seed, rule in product(range(SEEDS), UNDECAYED)
        ],
        run=racing_run,
    ),
    Study(
        name="gradient-noise",
        description="Signal and noise in the gradient of a window, as training goes on",
        plan=lambda written: (
            {} if written else {"lr": load_record("racing").plan["best"]["adamw"]["both"]["lr"]}
        ),
        runs=lambda plan: [{"lr": plan["lr"], "seed": seed} for seed in range(3)],
        run=noise_run,
    ),
)
