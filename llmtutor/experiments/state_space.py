"""Chapter 19, ssm: copying from known places, and from places that the tokens themselves tell.

A text holds a few letters among blanks, and ends in as many marks at which the letters are to be
said again, in their order. In "copying" the letters stand at the beginning, in "selective" copying
anywhere (Gu and Dao 2023, section 4.1.1). Three mixers of equal size learn it, at several lengths;
two of them again with more steps, and Mamba once without its choice.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.rates import inner_best
from llmtutor.experiments.study import Study, load_record
from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.positions import RopeConfig
from llmtutor.layers.recurrent.mamba import Mamba, MambaConfig
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
LONGER = 3200
LONGER_RATES: Mapping[str, float] = {"attention": 0.004, "s4d": 0.016}
"""Not searched: they show what can be learned, not what is the most."""
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
NO_CHOICE = "no-choice"
"""Mamba with ``Unchosen`` for its mixer."""
TUNED = (*MIXERS, NO_CHOICE)


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


class Unchosen(Mamba):
    """A Mamba whose Δ, B and C are learned, and are the same for every token.

    The state passes all else that it passes in Mamba. Each channel has its own B and C, as in S4D,
    which begin as there: B at 1, C normal with variance 1/2.
    """

    def __init__(self, d_model: int, **options: Any) -> None:
        super().__init__(d_model, **options)
        del self.select
        del self.step.weight
        self.enter = nn.Parameter(torch.ones_like(self.log_decay))
        self.read = nn.Parameter(torch.randn_like(self.log_decay) * math.sqrt(0.5))

    def _mixed(
        self, u: Tensor, tail: Tensor | None, state: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        v = F.silu(self.conv(u, tail))
        step = F.softplus(self.step.bias)[:, None]
        stays = torch.exp(step * -self.log_decay.exp()).expand(*v.shape, -1)
        h = self.scan(stays, v[..., None] * (step * self.enter), state)
        return (h * self.read).sum(-1) + self.skip * v, h[:, -1]


def copier(mixer: str, length: int) -> AtTheMarks:
    """A model with one of MIXERS or with NO_CHOICE, for texts of this length."""
    chosen = "mamba" if mixer == NO_CHOICE else check_name("mixer", mixer, MIXERS)
    parts = {"d_ff": 1, **MIXERS[chosen]}
    sizes = FIRST + LETTERS, length + ASKED, N_LAYERS, D_MODEL, 2
    model = build(ModelConfig.uniform(*sizes, init="glorot", **parts))
    if mixer == NO_CHOICE:
        for block in model.blocks:
            unchosen, whole = Unchosen(D_MODEL, d_state=D_STATE), block.get_submodule("mixer")
            assert isinstance(whole, Mamba)
            unchosen.input, unchosen.output = whole.input, whole.output
            block.mixer = unchosen
    return AtTheMarks(model)


@torch.no_grad()
def accuracy(model: nn.Module, task: Task, length: int) -> float:
    """The share of letters said right, on TEST_TEXTS texts that are the same for all."""
    ids, letters = copying(task, TEST_TEXTS, length, torch.Generator().manual_seed(10**6))
    return float((model(ids).argmax(-1) == letters).float().mean())


def copying_run(
    *, task: Task, mixer: str, length: int, lr: float, seed: int, steps: int = STEPS
) -> dict[str, Any]:
    """Train one model; models of a seed see the same batches."""
    torch.manual_seed(seed)
    model = copier(mixer, length)
    curve = train_curve(
        model,
        copying_batches(task, length, torch.Generator().manual_seed(seed)),
        steps=steps,
        lr=lr,
        schedule=warmup_cosine(steps, steps // 20, 0.1),
    )
    return {
        "accuracy": round(accuracy(model, task, length), 4),
        "loss": round(sum(curve.losses[-20:]) / 20, 4),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def rates_of(mixer: str) -> tuple[float, ...]:
    """Those tried for a mixer."""
    return RATES + MORE_RATES.get(mixer, ())


def _plan(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rates that the search found."""
    lacking = [mixer for mixer in TUNED if mixer not in written.get("rates", {})]
    if not lacking:
        return {}
    record = load_record("state-space-rates")
    losses = {
        mixer: {lr: record.results(mixer=mixer, lr=lr)[0]["loss"] for lr in rates_of(mixer)}
        for mixer in lacking
    }
    return {"rates": {mixer: inner_best(tried, mixer) for mixer, tried in losses.items()}}


STATE_SPACE = (
    Study(
        name="state-space-rates",
        description="Selective copying at one length: learning rates of three mixers",
        runs=lambda plan: [
            {"task": "selective", "mixer": mixer, "length": TUNING_LENGTH, "lr": lr}
            | {"seed": TUNING_SEED}
            for mixer in TUNED
            for lr in rates_of(mixer)
        ],
        run=copying_run,
    ),
    Study(
        name="state-space",
        description="Copying from known and from unknown places: attention, S4D, Mamba by length",
        plan=_plan,
        runs=lambda plan: (
            [
                {"task": task, "mixer": mixer, "length": length, "lr": plan["rates"][mixer]}
                | {"seed": seed}
                for seed in range(SEEDS)
                for length in LENGTHS
                for task in get_args(Task)[::-1]
                for mixer in MIXERS
            ]
            + [
                {"task": "selective", "mixer": NO_CHOICE, "length": TUNING_LENGTH}
                | {"lr": plan["rates"][NO_CHOICE], "seed": seed}
                for seed in range(SEEDS)
            ]
        ),
        run=copying_run,
    ),
    Study(
        name="state-space-longer",
        description="Selective copying at one length with four times the steps: attention, S4D",
        runs=lambda plan: [
            {"task": "selective", "mixer": mixer, "length": TUNING_LENGTH, "lr": lr}
            | {"seed": seed, "steps": LONGER}
            for seed in range(SEEDS)
            for mixer, lr in LONGER_RATES.items()
        ],
        run=copying_run,
    ),
)
