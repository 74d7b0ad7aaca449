"""Chapter 25, linear_attention: how many pairs a model can hold, by what it holds them in.

A text names pairs, a key and its value each, and then asks for every key once; the value is to be
said (Arora et al. 2023, multi-query associative recall). Attention looks the key up. A layer with a
state has to have stored the pair, before it knows what will be asked.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.study import Study, load_record
from llmtutor.layers.recurrent.delta_net import DeltaNet
from llmtutor.layers.recurrent.linear_attention import LinearAttention
from llmtutor.model.accounting import cache_bytes, parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.optim.schedules import warmup_cosine

KEYS = VALUES = 32
"""Tokens that can be keys, and the others, that can be values."""
PAIRS = (4, 8, 16, 24)
"""Pairs in a text; every batch has one of these, in turn at random."""
LONGEST = 3 * PAIRS[-1]
STEPS, WARMUP, BATCH = 1000, 50, 32
TESTED = 256
"""Texts for each number of pairs."""
RATES: Mapping[str, tuple[float, ...]] = {
    "attention": (0.0015, 0.003, 0.006),
    "linear attention": (0.004, 0.008, 0.016, 0.032),
    "mamba": (0.004, 0.008, 0.016),
    "delta-net": (0.004, 0.008, 0.016),
    "hybrid": (0.003, 0.006, 0.012),
}
"""Peaks that are tried for each model, with seed 0; a small state takes the rate of its large one.
"""
SEEDS = (0, 1, 2)
TIE = 0.005
"""Of rates whose mean accuracies are no further apart, the lower one is taken."""
CHUNK = 16
"""Tokens worked on together by the layers that can choose; the fastest at these sizes."""

BASE = ModelConfig.uniform(
    *(KEYS + VALUES, LONGEST),
    n_layers=4,
    d_model=32,
    n_heads=2,
    d_ff=96,
    init="glorot",
    tie_weights=False,
)
LINEAR: dict[str, Any] = {"mixer": "linear-attention", "conv_width": 4}
DELTA: dict[str, Any] = {"mixer": "delta-net", "fades": False, "output_gate": False}
SMALL = ", small state"
"""Behind the name of a model with eight heads of 4 in the place of two of 16: a quarter of it."""
CHANGES: Mapping[str, dict[str, Any]] = {
    "attention": {},
    "linear attention": LINEAR,
    "delta-net": DELTA,
    "hybrid": DELTA,
    "linear attention" + SMALL: LINEAR | {"n_heads": 8},
    "delta-net" + SMALL: DELTA | {"n_heads": 8},
    "mamba": {"mixer": "mamba", "d_state": 8},
}
"""What a model has in the place of attention; the last block of "hybrid" has attention."""


def recall_config(name: str) -> ModelConfig:
    """A model by name, of the size of the one with attention: ``d_ff`` makes up for the rest.

    Raises:
        ValueError: an unknown name (with the nearest one).
    """

    def of_width(d_ff: int) -> ModelConfig:
        changed = BASE.replace(**CHANGES[check_name("model", name, CHANGES)], d_ff=d_ff)
        if name != "hybrid":
            return changed
        return changed.replace(blocks=changed.blocks[:3] + BASE.replace(d_ff=d_ff).blocks[-1:])

    one, two = (parameters(of_width(d_ff)).total for d_ff in (1, 2))  # linear in d_ff
    return of_width(1 + round((parameters(BASE).total - one) / (two - one)))


def recall_texts(n_pairs: int, batch: int, generator: torch.Generator) -> Batch:
    """Texts "key value key value … key key …" and the values that the keys at the end ask for.

    (batch, 3 · n_pairs) ids, values behind the keys in the vocabulary, and (batch, n_pairs)
    targets. Keys differ within a text; values need not.
    """

    def shuffled(n: int) -> Tensor:
        return torch.rand(batch, n, generator=generator).argsort(-1)

    keys = shuffled(KEYS)[:, :n_pairs]
    values = KEYS + torch.randint(VALUES, (batch, n_pairs), generator=generator)
    pairs, order = torch.stack((keys, values), dim=-1).flatten(1), shuffled(n_pairs)
    return torch.cat((pairs, keys.gather(1, order)), dim=1), values.gather(1, order)


class Asked(nn.Module):
    """A model that is heard only where it is asked: in the last third of a text."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, 3 · n_pairs) → logits (batch, n_pairs, vocab_size)."""
        logits: Tensor = self.model(ids, logits_to_keep=ids.shape[1] // 3)
        return logits


def training_texts(seed: int) -> Iterator[Batch]:
    """Batch after batch, the same for every model."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = int(torch.randint(len(PAIRS), (), generator=generator))
        yield recall_texts(PAIRS[chosen], BATCH, generator)


@torch.no_grad()
def accuracy(model: nn.Module, n_pairs: int) -> float:
    """Share of the values that are said right, in TESTED texts that no training has seen."""
    inputs, targets = recall_texts(n_pairs, TESTED, torch.Generator().manual_seed(10_000 + n_pairs))
    return (model(inputs).argmax(-1) == targets).double().mean().item()


def recall_run(*, model: str, lr: float, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Train a model and ask it: the accuracy by number of pairs, its size, its bytes of past."""
    config = recall_config(model)
    torch.manual_seed(seed)
    asked = Asked(build(config))
    for module in asked.modules():
        if isinstance(module, LinearAttention | DeltaNet):
            module.chunk = CHUNK
    schedule = warmup_cosine(steps, WARMUP)
    curve = train_curve(asked, training_texts(seed), steps=steps, lr=lr, schedule=schedule)
    found = {} if curve.diverged else {str(n): round(accuracy(asked, n), 4) for n in PAIRS}
    return {
        "n_params": parameters(config).total,
        "cache_bytes": cache_bytes(config, 1, LONGEST),
        "accuracy": found,
        "mean_accuracy": round(sum(found.values()) / len(PAIRS), 4),
        "loss": [round(sum(curve.losses[i : i + 50]) / 50, 4) for i in range(0, steps - 49, 50)],
    }


def best_rates() -> dict[str, float]:
    """Of each model the lowest rate whose mean accuracy, of those tried, is within TIE of the best.

    Mean accuracies are over the numbers of pairs, of one run each.
    """
    runs = load_record("recall-rates").runs
    found = {}
    for name, rates in RATES.items():
        means = {
            run["settings"]["lr"]: run["result"]["mean_accuracy"]
            for run in runs
            if run["settings"]["model"] == name
        }
        top = max(means.values())
        found[name] = min(lr for lr in rates if means[lr] >= top - TIE)
    return found


def recall_settings(rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """All runs at the best rates, but for those with which the rates were found."""
    return [
        {"model": name, "lr": rates[name.removesuffix(SMALL)], "seed": seed}
        for name in CHANGES
        for seed in SEEDS
        if seed > 0 or name.endswith(SMALL)
    ]


RECALL = (
    Study(
        name="recall-rates",
        description="Learning rates for models that recall pairs",
        runs=lambda plan: [
            {"model": name, "lr": lr, "seed": 0} for name, rates in RATES.items() for lr in rates
        ],
        run=recall_run,
    ),
    Study(
        name="recall",
        description="Accuracy by number of pairs to recall, each model at its best rate",
        runs=lambda plan: recall_settings(plan["rates"]),
        run=recall_run,
        plan=lambda written: {} if written else {"rates": best_rates()},
    ),
)
