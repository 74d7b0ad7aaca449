"""Chapter 25, linear_attention: how many pairs a model can hold, and whether a pair can change.

A text names pairs, a key and its value each, and then asks for every key once; the value is to be
said (Arora et al. 2023, multi-query associative recall). Attention looks the key up. A layer with a
state has to have stored the pair, before it knows what will be asked. In the second task a third of
the keys are named twice, with different values, and the last one is asked for.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.recall_models import KEYS, LONGEST, VALUES, recall_config
from llmtutor.experiments.study import Study
from llmtutor.layers.recurrent.delta_net import DeltaNet
from llmtutor.model.accounting import cache_bytes, parameters
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.optim.schedules import warmup_cosine

Task = Literal["once", "twice"]
"""How often the first third of a text's keys are named; the others are named once."""
ASKED: Mapping[Task, tuple[int, ...]] = {"once": (4, 8, 16, 24), "twice": (6, 12, 24)}
"""Keys of a text; every batch has one of these numbers, in turn at random."""
STEPS, WARMUP, BATCH = 1000, 50, 32
MORE_STEPS: Mapping[str, int] = {"mamba": 3000}
TESTED = 256
"""Texts for each number of keys."""
CHUNK = 16
"""Tokens worked on together by the layers that can choose; the fastest at these sizes."""
RATES: Mapping[Task, Mapping[str, Mapping[float, int]]] = {
    "twice": {
        "attention": {0.003: 1, 0.006: 3, 0.012: 1},
        "adds": {0.008: 1, 0.016: 5, 0.032: 1, 0.064: 1},
        "delta rule": {0.004: 1, 0.008: 1, 0.016: 5, 0.032: 1},
        "adds, one layer": {0.008: 1, 0.016: 1, 0.032: 5, 0.064: 1},
        "delta rule, one layer": {0.008: 1, 0.016: 5, 0.032: 1},
    },
    "once": {
        "attention": {0.0015: 1, 0.003: 3, 0.006: 1, 0.012: 1},
        "attention without convolution": {0.0015: 1, 0.003: 3, 0.006: 1},
        "hybrid, small state": {0.0015: 1, 0.003: 3, 0.006: 1, 0.012: 1},
        "adds, small state": {0.004: 1, 0.008: 3, 0.016: 1},
        "delta rule, small state": {0.004: 1, 0.008: 3, 0.016: 3, 0.032: 1},
        "adds": {0.004: 1, 0.008: 3, 0.016: 1},
        "delta rule": {0.004: 1, 0.008: 3, 0.016: 1},
        "mamba": {0.001: 1, 0.002: 1, 0.004: 1, 0.008: 2, 0.016: 1},
    },
}
"""Peaks of the learning rate that are tried for each model, and with how many seeds."""


def recall_texts(n_keys: int, batch: int, generator: torch.Generator, task: Task = "once") -> Batch:
    """Texts "key value key value … key key …" and the values that the keys at the end ask for.

    Values stand behind the keys in the vocabulary. Keys differ within a text; values need not. In
    the task "twice" a third of the keys are written a second time, somewhere later, with another
    value. Returns ids (batch, 2 · writes + n_keys) and targets (batch, n_keys).

    Raises:
        ValueError: an unknown task; more keys than there are.
    """
    check_name("task", task, get_args(Task))
    if not 1 <= n_keys <= KEYS:
        raise ValueError(f"n_keys must lie in 1 … {KEYS}, got {n_keys}")
    again = n_keys // 3 if task == "twice" else 0

    def drawn(n: int) -> Tensor:
        return torch.rand(batch, n, generator=generator)

    keys = drawn(KEYS).argsort(-1)[:, :n_keys]
    values = torch.randint(VALUES, (batch, n_keys), generator=generator)
    shift = torch.randint(1, VALUES, (batch, again), generator=generator)
    replaced = (values[:, :again] + shift) % VALUES
    times, others = drawn(n_keys), drawn(again)
    earlier, later = (
        torch.minimum(times[:, :again], others),
        torch.maximum(times[:, :again], others),
    )
    order = torch.cat((later, times[:, again:], earlier), dim=1).argsort(-1)
    written = torch.cat((keys, keys[:, :again]), dim=1).gather(1, order)
    said = KEYS + torch.cat((values, replaced), dim=1).gather(1, order)
    pairs, asked = torch.stack((written, said), dim=-1).flatten(1), drawn(n_keys).argsort(-1)
    return torch.cat((pairs, keys.gather(1, asked)), dim=1), KEYS + values.gather(1, asked)


def n_asked(ids: Int[Tensor, "batch seq"]) -> int:
    """How many tokens at the end of the texts are questions: there is a value for each write."""
    return ids.shape[1] - 2 * int((ids[0] >= KEYS).sum())


def first_values(
    ids: Int[Tensor, "batch seq"],
) -> tuple[Int[Tensor, "batch asked"], Bool[Tensor, "batch asked"]]:
    """Of each key that is asked for its first value, and whether it was written twice."""
    n = n_asked(ids)
    writes = ids[:, None, :-n:2] == ids[:, -n:, None]
    return ids[:, 1:-n:2].gather(1, writes.int().argmax(-1)), writes.sum(-1) == 2


class Asked(nn.Module):
    """A model that is heard only where it is asked: at the end of a text."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, seq) → logits (batch, asked, vocab_size)."""
        logits: Tensor = self.model(ids, logits_to_keep=n_asked(ids))
        return logits


def training_texts(task: Task, seed: int) -> Iterator[Batch]:
    """Batch after batch, the same for every model."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = int(torch.randint(len(ASKED[task]), (), generator=generator))
        yield recall_texts(ASKED[task][chosen], BATCH, generator, task)


@torch.no_grad()
def accuracy(model: nn.Module, n_keys: int, task: Task) -> dict[str, float]:
    """Share of the values that are said right, in TESTED texts that no training has seen.

    Of keys that were written "once", and in the task "twice" of those written "twice" too, with the
    share of these whose "first" value was said.
    """
    generator = torch.Generator().manual_seed(10_000 + n_keys)
    ids, values = recall_texts(n_keys, TESTED, generator, task)
    said, (first, twice) = model(ids).argmax(-1), first_values(ids)
    shares = {"once": (said == values)[~twice]}
    if task == "twice":
        shares |= {"twice": (said == values)[twice], "first": (said == first)[twice]}
    return {name: round(share.double().mean().item(), 4) for name, share in shares.items()}


def recall_run(*, task: Task, model: str, lr: float, seed: int) -> dict[str, Any]:
    """Train a model and ask it: the accuracy by number of keys, its size, its bytes of past."""
    steps, config = MORE_STEPS.get(model, STEPS), recall_config(model)
    torch.manual_seed(seed)
    asked = Asked(build(config))
    for module in asked.modules():
        if isinstance(module, DeltaNet):
            module.chunk = CHUNK
    schedule = warmup_cosine(steps, WARMUP)
    curve = train_curve(asked, training_texts(task, seed), steps=steps, lr=lr, schedule=schedule)
    every = steps // 20
    return {
        "n_params": parameters(config).total,
        "cache_bytes": cache_bytes(config, 1, LONGEST),
        "right": {} if curve.diverged else {str(n): accuracy(asked, n, task) for n in ASKED[task]},
        "loss": [
            round(sum(curve.losses[i : i + every]) / every, 4)
            for i in range(0, len(curve.losses) - every + 1, every)
        ],
    }


RECALL = Study(
    name="recall",
    description="Which values a model recalls: pairs written once, and pairs that change",
    runs=lambda plan: [
        {"task": task, "model": model, "lr": lr, "seed": seed}
        for seed in range(5)
        for task, models in RATES.items()
        for model, rates in models.items()
        for lr, n_seeds in rates.items()
        if seed < n_seeds
    ],
    run=recall_run,
)
