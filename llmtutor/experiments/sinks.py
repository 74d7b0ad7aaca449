"""Chapter 16, efficient-attention: where a head leaves its attention when it has nothing to do.

The task is that of Guo et al. (2024), bigrams with back-copying. A text begins with one special
token. Most tokens follow from the one before them by a fixed table, which no attention helps with;
after a *trigger* the token before the trigger comes again, which only attention can know.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.study import Study
from llmtutor.experiments.training import schedule
from llmtutor.layers.basic import cross_entropy
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

VOCAB, TRIGGERS = 32, 3
"""Token 0 begins a text, tokens 1 … TRIGGERS are the triggers."""
SEQ_LEN, LONG = 64, 256
"""Tokens of a text in training, and of the long ones that are read afterwards."""
KEPT_FIRST = 4
STEPS, BATCH, PEAK = 800, 16, 0.005
SEEDS = 3
CHANGES: dict[str, dict[str, Any]] = {"plain": {}, "sinks": {"sinks": True}, "gate": {"gate": True}}
READERS: dict[str, dict[str, Any]] = {
    "full": {},
    "window": {"window": SEQ_LEN},
    "window and first": {"mixer": "streaming", "window": SEQ_LEN - KEPT_FIRST, "kept_first": 4},
}
"""How the trained model reads a long text; the last two keep as many tokens."""


def bigrams() -> Tensor:
    """The table (before, after): the same in every run."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(VOCAB, VOCAB, generator=generator).mul(2).exp()
    table[:, 0] = 0
    return table / table.sum(1, keepdim=True)


def texts(n: int, seq: int, generator: torch.Generator) -> Int[Tensor, "n seq"]:
    """``n`` texts of ``seq`` tokens."""
    table = bigrams()
    ids = torch.zeros(n, seq, dtype=torch.int64)
    ids[:, 1] = torch.randint(TRIGGERS + 1, VOCAB, (n,), generator=generator)
    for t in range(2, seq):
        before = ids[:, t - 1]
        drawn = torch.multinomial(table[before], 1, generator=generator)[:, 0]
        ids[:, t] = torch.where(before <= TRIGGERS, ids[:, t - 2], drawn)
    return ids


def is_trigger(ids: Int[Tensor, "n seq"]) -> Tensor:
    """Where a copy follows, (n, seq) boolean."""
    return (ids > 0) & (ids <= TRIGGERS)


def make_config(variant: str) -> ModelConfig:
    """One layer, one head."""
    return ModelConfig.uniform(VOCAB, LONG, 1, 64, 1, 128, init="glorot", **CHANGES[variant])


def trained(variant: str, seed: int) -> Transformer:
    """A model of one of CHANGES, after STEPS steps."""
    torch.manual_seed(seed)
    model = build(make_config(variant))
    generator = torch.Generator().manual_seed(1000 + seed)

    def batches() -> Iterator[Batch]:
        while True:
            ids = texts(BATCH, SEQ_LEN + 1, generator)
            yield ids[:, :-1], ids[:, 1:]

    train_curve(model, batches(), steps=STEPS, lr=PEAK, schedule=schedule(STEPS))
    return model.eval()


@torch.no_grad()
def first_key(model: Transformer, ids: Int[Tensor, "n seq"]) -> tuple[float, float]:
    """Mean weight on the first token from positions 16 on: at (other tokens, triggers)."""
    mixer: Any = model.blocks[0].get_submodule("mixer")
    x = model.blocks[0].get_submodule("norm_1")(model.embedding(ids))
    weights = mixer.weights(x)[:, 0, 16:, 0]
    trigger = is_trigger(ids)[:, 16:]
    return weights[~trigger].mean().item(), weights[trigger].mean().item()


@torch.no_grad()
def losses_in(
    model: Transformer, reader: str, ids: Int[Tensor, "n seq"], start: int, stop: int
) -> tuple[float, float]:
    """Mean loss of a reader at positions ``start`` … ``stop`` − 1: at (other tokens, triggers)."""
    read = build(model.config.replace(**READERS[reader]))
    read.load_state_dict(model.state_dict())
    losses = cross_entropy(read.eval()(ids[:, :-1]), ids[:, 1:], reduction="none")
    here, trigger = losses[:, start:stop], is_trigger(ids[:, :-1])[:, start:stop]
    return here[~trigger].mean().item(), here[trigger].mean().item()


def sinks_run(*, variant: str, seed: int) -> dict[str, Any]:
    """Weights on the first token, and losses on long texts, in nats a token."""
    model = trained(variant, seed)
    ids = texts(64, LONG + 1, torch.Generator().manual_seed(7))
    others, triggers = first_key(model, ids[:, :SEQ_LEN])
    found: dict[str, Any] = {"others": round(others, 4), "triggers": round(triggers, 4)}
    for name, (start, stop) in {"near": (16, SEQ_LEN), "far": (2 * SEQ_LEN, LONG)}.items():
        found[name] = {
            reader: [round(x, 4) for x in losses_in(model, reader, ids, start, stop)]
            for reader in READERS
        }
    return found


SINKS = Study(
    name="attention-sinks",
    description="A head that seldom has work: where its weights go, and what a window takes away",
    runs=lambda plan: [
        {"variant": variant, "seed": seed} for seed in range(SEEDS) for variant in CHANGES
    ],
    run=sinks_run,
)
