"""Chapter 17, differential: finding facts among noise, and which part of the layer does it.

Texts are made and never repeated: a few facts among many random tokens, then a question for each
fact. Plain attention and both versions of differential attention have equally many parameters and
see the same texts; so do two that have only a half of the first version, its norm or its
difference.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.study import Record, Study, load_record
from llmtutor.layers.attention import Attention, AttentionConfig
from llmtutor.layers.attention.differential import DifferentialAttention, DifferentialConfig
from llmtutor.layers.attention.differential_v2 import DifferentialV2Config
from llmtutor.layers.basic import cross_entropy
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.norms import rms_norm
from llmtutor.layers.part import Site
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer
from llmtutor.optim.schedules import warmup_cosine

KEYS, VALUES, JUNK = 16, 8, 64
"""A fact is one token that says a key and a value; a question is a key; junk says nothing."""
FACTS, AMONG = 8, 48
"""In a text while training: facts, and tokens of junk."""
QUESTIONS = KEYS * VALUES
VOCAB = QUESTIONS + KEYS + JUNK
STEPS, BATCH = 300, 32
TESTED, TEXTS = (48, 192, 768), 64
"""Tokens of junk in the texts that are not trained on, and how many such texts of each kind."""
RATES = (0.00075, 0.0015, 0.003, 0.006, 0.012)
MORE_RATES = {("gpt2", "differential-v2"): (0.024,)}
"""Where the best of these lay at an end."""
RATE_SEED, SEEDS = 100, 5
LONGER, LONGER_SEEDS = 1200, 2
"""Steps of a few runs of plain attention that show whether it only takes longer."""
INITS = ("gpt2", "glorot")


class NormedAttention(Attention):
    """Plain attention with the norm of each head, which differential attention has: no map less."""

    def _look(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rules: dict[str, Any]) -> Tensor:
        heads = super()._look(x, q, k, v, rules)
        return 0.8 * rms_norm(heads, heads.new_ones(heads.shape[-1]))  # 1 − λ_init of layer 0


class DifferenceAlone(DifferentialAttention):
    """Differential attention without the norm of each head and its factor."""

    def _normed(self, heads: Tensor) -> Tensor:
        return heads


@dataclass(frozen=True)
class NormedConfig(AttentionConfig):
    """``NormedAttention``."""

    kind: ClassVar[str] = "norm-alone"

    def build(self, site: Site) -> NormedAttention:
        """The layer."""
        return NormedAttention(site.d_model, **self.options(site))


@dataclass(frozen=True)
class DifferenceConfig(DifferentialConfig):
    """``DifferenceAlone``."""

    kind: ClassVar[str] = "difference-alone"

    def build(self, site: Site) -> DifferenceAlone:
        """The layer."""
        return DifferenceAlone(site.d_model, **self.options(site), layer=site.layer)


N_HEADS, D_FF = 4, 128
VARIANTS: Mapping[str, tuple[MixerConfig, int]] = {
    "attention": (AttentionConfig(N_HEADS), D_FF),
    "differential": (DifferentialConfig(N_HEADS), D_FF),
    "differential-v2": (DifferentialV2Config(N_HEADS), D_FF - 23),
    "norm alone": (NormedConfig(N_HEADS), D_FF),
    "difference alone": (DifferenceConfig(N_HEADS, gain=False), D_FF),
}
"""Mixers, with the ``d_ff`` that makes their models equally large."""


def model_config(variant: str, init: str = "gpt2") -> ModelConfig:
    """One block, without positions: where a fact stands does not matter here."""
    mixer, d_ff = VARIANTS[variant]
    return ModelConfig.uniform(
        VOCAB,
        max(TESTED) + 2 * FACTS,
        n_layers=1,
        d_model=64,
        n_heads=N_HEADS,
        d_ff=d_ff,
        mixer=mixer,
        tie_weights=False,
        init=init,
    )


def texts(
    batch: int, junk: int, generator: torch.Generator
) -> tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch facts"], Int64[Tensor, "batch facts"]]:
    """Texts that end with a question for each fact, the answers, and where these facts stand."""
    ids = QUESTIONS + KEYS + torch.randint(JUNK, (batch, junk + FACTS), generator=generator)
    keys = torch.rand(batch, KEYS, generator=generator).argsort(1)[:, :FACTS]
    values = torch.randint(VALUES, (batch, FACTS), generator=generator)
    # In no order, and so are the questions.
    places = torch.rand(batch, junk + FACTS, generator=generator).argsort(1)[:, :FACTS]
    ids.scatter_(1, places, keys * VALUES + values)
    return torch.cat((ids, QUESTIONS + keys), dim=1), values, places


class Answers(nn.Module):
    """The logits of the last ``n`` tokens alone: nothing else in a text can be predicted."""

    def __init__(self, model: Transformer, n: int = FACTS) -> None:
        super().__init__()
        self.model, self.n = model, n

    def forward(self, ids: Int64[Tensor, "batch seq"]) -> Tensor:
        """(batch, seq) → (batch, n, vocab_size)."""
        return self.model(ids, logits_to_keep=self.n)


def train(variant: str, lr: float, seed: int, init: str, steps: int = STEPS) -> tuple[Any, Answers]:
    """The curve and the model; weights and texts are drawn from the seed."""
    torch.manual_seed(seed)
    model = Answers(Transformer(model_config(variant, init)))
    generator = torch.Generator().manual_seed(seed)
    batches: Iterator = (texts(BATCH, AMONG, generator)[:2] for _ in range(steps))
    schedule = warmup_cosine(steps, steps // 10, 0.1)
    return train_curve(model, batches, steps=steps, lr=lr, schedule=schedule), model


@torch.no_grad()
def look(model: Answers, junk: int) -> dict[str, float]:
    """Loss, share of right answers, and share of the attention on the fact that is asked for.

    The share of a head is its weight on the fact, divided by the sum of its weights without their
    signs; ``on_fact`` is the mean over heads and questions, ``best_head`` that of the best head.
    """
    ids, answers, places = texts(TEXTS, junk, torch.Generator().manual_seed(junk))
    logits = model(ids)
    block = model.model.blocks[0]
    mixer: Any = block.get_submodule("mixer")
    asked = []
    for some, where in zip(ids.split(20), places.split(20), strict=True):  # few: seq² weights
        weights = mixer.weights(block.get_submodule("norm_1")(model.model.embedding(some)))
        rows = weights[:, :, -FACTS:]
        on = rows.gather(3, where[:, None, :, None].expand(*rows.shape[:3], 1)).squeeze(3)
        asked.append((on / rows.abs().sum(-1)).mean((0, 2)))
    shares = torch.stack(asked).mean(0)
    return {
        "loss": round(float(cross_entropy(logits, answers)), 5),
        "right": round(float((logits.argmax(-1) == answers).double().mean()), 4),
        "on_fact": round(float(shares.mean()), 4),
        "best_head": round(float(shares.max()), 4),
    }


def needle_run(
    *, variant: str, init: str, lr: float, seed: int, steps: int = STEPS
) -> dict[str, Any]:
    """Train once; then texts with as much junk as in training, and with up to 16 times as much."""
    curve, model = train(variant, lr, seed, init, steps)
    found = {str(junk): look(model, junk) for junk in TESTED}
    tens = range(0, len(curve.losses) // 25 * 25, 25)
    return {
        "n_params": parameters(model_config(variant)).total,
        "loss": found[str(AMONG)]["loss"],
        "curve": [round(statistics.mean(curve.losses[i : i + 25]), 4) for i in tens],
        "by_junk": found,
    }


def best_rates(record: Record, variants: Iterable[str], **settings: Any) -> dict[str, float]:
    """By variant, the rate with the lowest loss among runs with these settings."""
    best = {}
    for variant in variants:
        runs = [
            r
            for r in record.runs
            if r["settings"].items() >= {**settings, "variant": variant}.items()
        ]
        best[variant] = min(runs, key=lambda run: run["result"]["loss"])["settings"]["lr"]
    return best


def _plan(written: Mapping[str, Any]) -> dict[str, Any]:
    if written:
        return {}
    record = load_record("needle-rates")
    return {"lr": {init: best_rates(record, VARIANTS, init=init) for init in INITS}}


NEEDLE = (
    Study(
        name="needle-rates",
        description="A learning rate for each layer that looks for facts among noise",
        runs=lambda plan: [
            {"variant": variant, "init": init, "lr": lr, "seed": RATE_SEED}
            for init, variant in product(INITS, VARIANTS)
            for lr in (*RATES, *MORE_RATES.get((init, variant), ()))
        ],
        run=needle_run,
    ),
    Study(
        name="needle",
        description="Facts among noise: differential attention, its parts, and plain attention",
        plan=_plan,
        runs=lambda plan: [
            {"variant": variant, "init": init, "lr": plan["lr"][init][variant], "seed": seed}
            for seed, init, variant in product(range(SEEDS), INITS, VARIANTS)
        ],
        run=needle_run,
    ),
    Study(
        name="needle-longer",
        description="Facts among noise: plain attention with four times the steps",
        plan=lambda written: {} if written else {"lr": load_record("needle").plan["lr"]},
        runs=lambda plan: [
            {
                "variant": "attention",
                "init": init,
                "lr": plan["lr"][init]["attention"],
                "seed": seed,
                "steps": LONGER,
            }
            for seed, init in product(range(LONGER_SEEDS), INITS)
        ],
        run=needle_run,
    ),
)
