"""Chapter 19, ssm: copying from known places, and from places that the tokens themselves tell.

A text holds a few letters among blanks, and ends in as many marks at which the letters are to be
said again, in their order. In "copying" the letters stand at the beginning, in "selective" copying
anywhere (Gu and Dao 2023, section 4.1.1). Three mixers of equal size learn it, at several lengths.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.study import Study, load_record
from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.positions import RopeConfig
from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.layers.recurrent.s4d import S4DConfig
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.optim.schedules import warmup_cosine

BLANK, MARK, FIRST = 0, 1, 2
"""Ids: a token that says nothing, the question, and the first letter."""
LETTERS, ASKED = 8, 4
"""Different letters, and how many a text holds."""
D_MODEL, N_LAYERS, D_STATE = 32, 2, 8
STEPS, BATCH = 800, 32
LENGTHS = (16, 32, 64)
SEEDS = 3
TUNING_SEED, TUNING_LENGTH = 100, 32
RATES = (0.002, 0.004, 0.008, 0.016, 0.032)
MORE_RATES: Mapping[str, tuple[float, ...]] = {"s4d": (0.064, 0.128)}
"""Tried too where the best of RATES was the last."""
TEST_TEXTS = 1000

Task = Literal["copying", "selective"]
MIXERS: Mapping[str, dict[str, Any]] = {
    "attention": {"mixer": AttentionConfig(2, position=RopeConfig()), "d_ff": 44},
    "s4d": {"mixer": S4DConfig(D_STATE), "d_ff": 54},
    "mamba": {"mixer": MambaConfig(D_STATE), "ffn": "no-ffn"},
}
"""Mamba's block is its mixer alone; the feed-forward parts of the others make up for it."""


def copying(
    task: Task, texts: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "texts seq"], Int[Tensor, "texts asked"]]:
    """Texts of ``length`` tokens and ASKED marks behind them, and the letters to be said there.

    >>> ids, letters = copying("copying", 1, 6, torch.Generator().manual_seed(0))
    >>> ids.tolist(), letters.tolist()
    ([[6, 9, 7, 2, 0, 0, 1, 1, 1, 1]], [[6, 9, 7, 2]])

    Raises:
        ValueError: an unknown task, a text too short for the letters.
    """
    check_name("task", task, get_args(Task))
    if length < ASKED:
        raise ValueError(f"length must be at least {ASKED}, a place for each letter, got {length}")
    letters = torch.randint(FIRST, FIRST + LETTERS, (texts, ASKED), generator=generator)
    if task == "copying":
        places = torch.arange(ASKED).expand(texts, -1)
    else:
        order = torch.rand(texts, length, generator=generator).argsort(dim=1)
        places = order[:, :ASKED].sort(dim=1).values
    ids = torch.full((texts, length), BLANK).scatter(1, places, letters)
    return torch.cat((ids, torch.full((texts, ASKED), MARK)), dim=1), letters


def copying_batches(
    task: Task, length: int, generator: torch.Generator, texts: int = BATCH
) -> Iterator[Batch]:
    """Batches without end."""
    while True:
        yield copying(task, texts, length, generator)


class AtTheMarks(nn.Module):
    """A model that is asked at the marks alone: ids (batch, seq) → logits (batch, asked, vocab)."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch asked vocab"]:
        """The logits of the last ASKED tokens."""
        logits: Tensor = self.model(ids, logits_to_keep=ASKED)
        return logits


def copier(mixer: str, length: int) -> AtTheMarks:
    """A model with one of MIXERS, for texts of this length."""
    parts = {"d_ff": 1, **MIXERS[check_name("mixer", mixer, MIXERS)]}
    sizes = FIRST + LETTERS, length + ASKED, N_LAYERS, D_MODEL, 2
    return AtTheMarks(build(ModelConfig.uniform(*sizes, init="glorot", **parts)))


@torch.no_grad()
def accuracy(model: nn.Module, task: Task, length: int) -> float:
    """The share of letters said right, on TEST_TEXTS texts that are the same for all."""
    ids, letters = copying(task, TEST_TEXTS, length, torch.Generator().manual_seed(10**6))
    return float((model(ids).argmax(-1) == letters).float().mean())


def copying_run(*, task: Task, mixer: str, length: int, lr: float, seed: int) -> dict[str, Any]:
    """Train one model; models of a seed see the same batches."""
    torch.manual_seed(seed)
    model = copier(mixer, length)
    curve = train_curve(
        model,
        copying_batches(task, length, torch.Generator().manual_seed(seed)),
        steps=STEPS,
        lr=lr,
        schedule=warmup_cosine(STEPS, STEPS // 20, 0.1),
    )
    return {
        "accuracy": round(accuracy(model, task, length), 4),
        "loss": round(sum(curve.losses[-20:]) / 20, 4),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def rates_of(mixer: str) -> tuple[float, ...]:
    """Those tried for a mixer."""
    return RATES + MORE_RATES.get(mixer, ())


def best_rate(losses: Mapping[float, float]) -> float:
    """The rate with the lowest loss.

    Raises:
        ValueError: it is the first or the last, so a better one may lie outside.
    """
    best = min(losses, key=losses.__getitem__)
    if best in (min(losses), max(losses)):
        raise ValueError(f"the lowest loss is at {best:g}, an end of the rates tried: try more")
    return best


def _plan(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rates that the search found."""
    if "rates" in written:
        return {}
    record = load_record("state-space-rates")
    losses = {
        mixer: {lr: record.results(mixer=mixer, lr=lr)[0]["loss"] for lr in rates_of(mixer)}
        for mixer in MIXERS
    }
    return {"rates": {mixer: best_rate(tried) for mixer, tried in losses.items()}}


STATE_SPACE = (
    Study(
        name="state-space-rates",
        description="Selective copying at one length: learning rates of three mixers",
        runs=lambda plan: [
            {"task": "selective", "mixer": mixer, "length": TUNING_LENGTH, "lr": lr}
            | {"seed": TUNING_SEED}
            for mixer in MIXERS
            for lr in rates_of(mixer)
        ],
        run=copying_run,
    ),
    Study(
        name="state-space",
        description="Copying from known and from unknown places: attention, S4D, Mamba by length",
        plan=_plan,
        runs=lambda plan: [
            {"task": task, "mixer": mixer, "length": length, "lr": plan["rates"][mixer]}
            | {"seed": seed}
            for seed in range(SEEDS)
            for length in LENGTHS
            for task in get_args(Task)[::-1]
            for mixer in MIXERS
        ],
        run=copying_run,
    ),
)
