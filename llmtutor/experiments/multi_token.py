"""Chapter 21, generation: a small model trained with a second head and without, and their drafts.

All runs of a seed see the same batches in the same order. What is compared is the plain loss; of
the model with a second head it is also asked how often its own text would accept a proposal of
that head, of a smaller model, or of a counted one.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.data.batches import batch_at
from llmtutor.data.corpora import load_corpus
from llmtutor.experiments.curve import loss_on, placed, rounded, spread_windows, train_curve
from llmtutor.experiments.staircase import best_rate
from llmtutor.experiments.study import Record, Study, load_record
from llmtutor.experiments.training import SEQ_LEN, model_config, schedule, tokens
from llmtutor.model.accounting import parameters, token_flops
from llmtutor.model.config import ModelConfig
from llmtutor.model.language_modelling import NGram
from llmtutor.model.losses import batch_losses
from llmtutor.model.multi_token import MultiToken, multi_token_losses, second_head_costs
from llmtutor.model.presets import build

VOCAB_SIZE, BATCH, STEPS = 512, 16, 600
D_MODEL, N_LAYERS = 64, 2
SMALL = (32, 1)
"""Width and blocks of the small model that drafts."""
ORDER = 3
"""Of the counted draft: it sees the last two tokens."""
RATES = {
    "plain": (0.004, 0.008, 0.016, 0.032),
    "multi": (0.004, 0.008, 0.016, 0.032),
    "small": (0.008, 0.016, 0.032, 0.064),
}
RATE_SEED = 100
SEEDS = 5
FINAL_WINDOWS, DRAFT_WINDOWS = 1024, 128
"""Held-out windows for a final loss, and for the drafts."""


def config_of(variant: str) -> ModelConfig:
    """The model's, without its second head."""
    width, n_layers = SMALL if variant == "small" else (D_MODEL, N_LAYERS)
    return model_config(width, n_layers, VOCAB_SIZE)


def longer() -> int:
    """Steps in which a plain model takes as many FLOPs as one with a second head in STEPS."""
    config = config_of("multi")
    plain, more = token_flops(config, SEQ_LEN), second_head_costs(config, SEQ_LEN).flops
    return round(STEPS * (plain + more) / plain)


VARIANTS: dict[str, Callable[[], int]] = {
    "plain": lambda: STEPS,
    "multi": lambda: STEPS,
    "longer": longer,
    "small": lambda: STEPS,
}
"""What is trained, and for how many steps: "longer" is "plain" with the FLOPs of "multi"."""
DRAFTS = {"head": "second head", "small": "small model", "ngram": "counts of three tokens"}
"""Names for tables."""


@cache
def trained(variant: str, lr: float, seed: int, device: str = "cpu") -> nn.Module:
    """A model after its last step; do not change it."""
    steps = VARIANTS[check_name("variant", variant, VARIANTS)]()
    torch.manual_seed(seed)
    model: nn.Module = build(config_of(variant))  # the same first weights with a second head
    if multi := variant == "multi":
        model = MultiToken(model)  # type: ignore[arg-type]
    train = tokens(VOCAB_SIZE)[0]
    train_curve(
        model,
        (batch_at(train, BATCH, SEQ_LEN, seed=seed, step=step) for step in range(steps)),
        steps=steps,
        lr=lr,
        schedule=schedule(steps),
        loss=multi_token_losses if multi else batch_losses,
        device=device,
    )
    return model.eval()


def multi_token_run(
    *, variant: str, lr: float, seed: int, draft_lr: float | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Train one; its plain loss, and with ``draft_lr``, the small model's, what drafts are worth.

    Raises:
        ValueError: an unknown variant.
    """
    model = trained(variant, lr, seed, device)
    train, valid, _ = tokens(VOCAB_SIZE)
    report = loss_on(model, spread_windows(valid, FINAL_WINDOWS, SEQ_LEN))
    n_bytes = report.n_tokens * len(load_corpus().valid.encode()) / len(valid)
    result: dict[str, Any] = {
        "steps": VARIANTS[variant](),
        "n_params": parameters(config_of(variant)).total,
        **rounded(report, n_bytes),
    }
    if draft_lr is not None:
        assert isinstance(model, MultiToken)
        small = trained("small", draft_lr, seed, device)
        counts = NGram(ORDER, VOCAB_SIZE).fit(train)
        result |= {"drafts": draft_values(model, {"small": small}, {"ngram": counts}, device)}
    return result


@torch.no_grad()
def draft_values(
    model: MultiToken,
    models: Mapping[str, nn.Module],
    counted: Mapping[str, NGram],
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """Of each draft: loss, mean Σ min(p, q), and how often both have the same favourite.

    On DRAFT_WINDOWS held-out windows, at each token but the first two: those that the second head
    ("head") can predict.
    """
    sums: dict[str, np.ndarray] = {}
    n = 0
    for inputs, targets in held_out(device):
        logits, hidden, _ = model.read(inputs)
        p, wanted = logits[:, 1:].double().softmax(-1), targets[:, 1:]
        drafts = {"head": model.ahead(hidden, targets)[0][:, :-1].double().softmax(-1)}
        drafts |= {k: each(inputs)[:, 1:].double().softmax(-1) for k, each in models.items()}
        drafts |= {name: counted_probs(each, inputs) for name, each in counted.items()}
        for name, q in drafts.items():
            found = [
                -q.gather(-1, wanted[..., None]).log().sum(),
                torch.minimum(p, q).sum(),
                (p.argmax(-1) == q.argmax(-1)).sum(),
            ]
            sums[name] = sums.get(name, 0) + np.array([float(x) for x in found])
        n += wanted.numel()
    names = ("loss", "acceptance", "agreement")
    return {
        draft: {k: round(float(x), 5) for k, x in zip(names, total / n, strict=True)}
        for draft, total in sums.items()
    }


def held_out(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The windows that drafts are measured on."""
    return placed(spread_windows(tokens(VOCAB_SIZE)[1], DRAFT_WINDOWS, SEQ_LEN), device)


def counted_probs(model: NGram, inputs: Tensor) -> Float[Tensor, "batch later vocab"]:
    """What a counted model says after each token but the first."""
    rows = [
        [model.next_probs(row[: end + 1]) for end in range(1, len(row))]
        for row in inputs.cpu().numpy()
    ]
    return torch.from_numpy(np.array(rows)).to(inputs.device)


def losses(record: Record) -> dict[str, dict[int, float]]:
    """Plain held-out loss, in nats a token, by variant and seed."""
    found: dict[str, dict[int, float]] = {variant: {} for variant in VARIANTS}
    for run in record.runs:
        found[run["settings"]["variant"]][run["settings"]["seed"]] = run["result"]["valid_loss"]
    return found


def draft_rows(record: Record) -> list[tuple[str, ...]]:
    """For a table: draft, parameters, FLOPs a proposal (the model is 1), loss, accepted, gain.

    The gain is in tokens for the cost of a pass of the model, with one proposal a pass. Counts are
    a table, and take no products.
    """
    config, small = config_of("multi"), config_of("small")
    one, head = token_flops(config, SEQ_LEN), second_head_costs(config, SEQ_LEN)
    costs = {
        "head": (f"{head.parameters:,}", head.flops / one),
        "small": (f"{parameters(small).total:,}", token_flops(small, SEQ_LEN) / one),
        "ngram": ("a table", 0.0),
    }
    rows: list[tuple[str, ...]] = []
    for draft, name in DRAFTS.items():
        values = [result["drafts"][draft] for result in record.results(variant="multi")]
        nats, accepted = (fmean(v[key] for v in values) for key in ("loss", "acceptance"))
        size, cost = costs[draft]
        gain = (1 + accepted) / (1 + cost)
        rows.append((name, size, f"{cost:.2f}", f"{nats:.2f}", f"{accepted:.2f}", f"{gain:.2f}"))
    return rows


def _plan(written: Mapping[str, Any]) -> dict[str, Any]:
    """The best rate of each variant; "longer" takes that of "plain"."""
    if written:
        return {}
    record = load_record("multi-token-rates")
    tried: dict[str, dict[float, float]] = {variant: {} for variant in RATES}
    for run in record.runs:
        tried[run["settings"]["variant"]][run["settings"]["lr"]] = run["result"]["valid_loss"]
    return {"learning_rate": {variant: best_rate(losses) for variant, losses in tried.items()}}


def _runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    rates, runs = plan["learning_rate"], []
    for seed in range(SEEDS):
        for variant in ("plain", "longer", "small"):
            rate = rates["plain" if variant == "longer" else variant]
            runs.append({"variant": variant, "lr": rate, "seed": seed})
        more = {"lr": rates["multi"], "draft_lr": rates["small"]}
        runs.append({"variant": "multi", "seed": seed, **more})
    return runs


MULTI_TOKEN = (
    Study(
        name="multi-token-rates",
        description="A learning rate for a model with a second head, without, and for its draft",
        runs=lambda plan: [
            {"variant": variant, "lr": lr, "seed": RATE_SEED}
            for variant, rates in RATES.items()
            for lr in rates
        ],
        run=multi_token_run,
    ),
    Study(
        name="multi-token",
        description="A second head that predicts the token after next: plain loss and drafts",
        plan=_plan,
        runs=_runs,
        run=multi_token_run,
    ),
)
