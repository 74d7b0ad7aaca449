"""The two recipes of ``speedrun.py``, the baseline and ours, and runs of them against the clock."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmtutor.data.batches import random_batches, sequential_batches
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.layers.basic import Embedding
from llmtutor.layers.ngram import NgramEmbedding
from llmtutor.layers.norms import LayerNormConfig
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer
from llmtutor.optim import Schedule, make_optimizer, make_schedule

CONTEXT = 64
BASELINE_STEPS = 2000
PUBLISHED_RATE = 1e-3
"""nanoGPT's, for its small models."""

Curve = list[tuple[int, float, float]]
"""Steps, seconds of training, validation loss."""


@dataclass
class Run:
    """A model on its way: one call of ``train`` makes some steps, the clock runs only there."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    batches: Iterator[tuple[Tensor, Tensor]]
    clip: float | None
    step: int = 0
    seconds: float = 0.0
    curve: Curve = field(default_factory=list)

    def train(self, until: int) -> None:
        start = time.perf_counter()
        while self.step < until:
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self.schedule(self.step)
            inputs, targets = next(self.batches)
            loss = F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.step += 1
        self.seconds += time.perf_counter() - start

    def evaluate(self, ids: np.ndarray) -> None:
        loss = evaluate_loss(self.model, sequential_batches(ids, 64, CONTEXT)).nats_per_token
        self.curve.append((self.step, round(self.seconds, 3), round(loss, 4)))


def windows(ids: np.ndarray, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return random_batches(ids, batch_size, CONTEXT, generator=generator)


# The baseline ------------------------------------------------------------------------------------


class GPTBlock(nn.Module):
    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = (nn.LayerNorm(d_model, bias=False) for _ in range(2))
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm_1(x)).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(heads.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """nanoGPT's GPT without biases, in plain torch."""

    def __init__(self, vocab_size: int, d_model: int = 128, n_layers: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Parameter(torch.empty(CONTEXT, d_model))
        self.blocks = nn.Sequential(*(GPTBlock(d_model, 4) for _ in range(n_layers)))
        self.norm = nn.LayerNorm(d_model, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                writes = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * n_layers) if writes else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.blocks(self.tokens(ids) + self.positions[: ids.shape[1]])
        return F.linear(self.norm(x), self.tokens.weight)


def baseline(
    ids: np.ndarray, vocab_size: int, steps: int, seed: int, lr: float = PUBLISHED_RATE
) -> Run:
    """nanoGPT's README recipe for a CPU; ``lr`` is its peak, at the published value or another."""
    torch.manual_seed(seed)
    model = GPT(vocab_size)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr, (0.9, 0.99), weight_decay=0.1, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = make_schedule("warmup_cosine", steps=steps, warmup=min(100, steps // 3), final=0.1)
    return Run(model, optimizer, schedule, windows(ids, 12, seed), clip=1.0)


# Ours --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Ours; each field is a difference to the baseline, or belongs to one."""

    n_layers: int = 2
    d_ff: int = 384
    ffn: str = "relu2"
    position: str = "rope"
    init: str = "glorot"
    tied: bool = False
    rows: tuple[int, ...] = (1536, 2048)
    zero_init: bool = True
    optimizer: str = "muon"
    lr: float = 0.014
    momentum: float = 0.9
    adam_lr: float = 0.01
    beta2: float = 0.95
    weight_decay: float = 0.0
    clip: float | None = None
    batch_size: int = 32
    schedule: str = "wsd"
    final: float = 0.0
    warmup: int = 10


RECIPE = Recipe()
WITHOUT_MUON = replace(RECIPE, optimizer="adamw")
"""AdamW for everything, at a rate that ``speedrun.py`` looks for."""


def left_out(baseline_lr: float, adamw_lr: float) -> Mapping[str, Recipe]:
    """Every difference given up, one at a time, for what the baseline does.

    ``baseline_lr`` is the rate of the tuned baseline, ``adamw_lr`` that of AdamW in Muon's place.
    """
    return {
        "nothing": RECIPE,
        "n-gram embedding": replace(RECIPE, rows=()),
        "Muon": replace(WITHOUT_MUON, lr=adamw_lr),
        "two blocks instead of four": replace(RECIPE, n_layers=4, d_ff=512),
        "squared ReLU": replace(RECIPE, ffn="gelu"),
        "rotary positions": replace(RECIPE, position="learned"),
        "Glorot's start": replace(RECIPE, init="gpt2"),
        "zeros at the start": replace(RECIPE, zero_init=False),
        "head of its own": replace(RECIPE, tied=True),
        "batch of 32 windows": replace(RECIPE, batch_size=12),
        "decay to zero": replace(RECIPE, schedule="warmup_cosine", final=0.1),
        "short warm-up": replace(RECIPE, warmup=100),
        "no weight decay": replace(RECIPE, weight_decay=0.1),
        "no clipping": replace(RECIPE, clip=1.0),
        "beta2 of 0.95": replace(RECIPE, beta2=0.99),
        "rate of AdamW": replace(RECIPE, adam_lr=baseline_lr),
    }


def works_like(recipe: Recipe) -> Recipe:
    """Ours with those changes alone that change what a step computes, or how small its numbers get.

    Rows that work alike get as many steps: their times would differ by the machine's noise. (Too
    high a rate makes AdamW's numbers denormal, and a step half as long again.)
    """
    parts = ("n_layers", "d_ff", "ffn", "position", "tied", "rows")
    kept = (*parts, "optimizer", "lr", "batch_size", "clip")
    return replace(RECIPE, **{name: getattr(recipe, name) for name in kept})


def our_model(recipe: Recipe, vocab_size: int) -> Transformer:
    shape = {"n_layers": recipe.n_layers, "d_model": 128, "n_heads": 4, "d_ff": recipe.d_ff}
    sizes = {"vocab_size": vocab_size, "max_seq_len": CONTEXT, "tie_weights": recipe.tied}
    # torch has a fused kernel for LayerNorm on CPUs and none for RMSNorm
    parts = {"ffn": recipe.ffn, "init": recipe.init, "norm": LayerNormConfig(bias=False)}
    if recipe.position == "rope":
        parts |= {"rope_pairing": "interleaved", "rope_base": 1000.0}
    else:
        parts |= {"position": recipe.position}
    model = build(preset("llama", **sizes, **shape, **parts))
    # Look-ups cost nothing, so half of the parameters are rows for the last two and three tokens.
    model.embedding = NgramEmbedding(vocab_size, 128, recipe.rows)
    for table in model.embedding.modules():
        if isinstance(table, Embedding):
            nn.init.normal_(table.weight, std=0.02)
    if recipe.tied:
        model.head.weight = model.embedding.weight
    if recipe.zero_init:  # each block begins as the identity, and the logits are all equal
        for name, p in model.named_parameters():
            if name.endswith(("mixer.output.weight", "ffn.down.weight", "head.weight")):
                nn.init.zeros_(p)
    return model


def ours(recipe: Recipe, ids: np.ndarray, vocab_size: int, steps: int, seed: int) -> Run:
    torch.manual_seed(seed)
    model = our_model(recipe, vocab_size)
    optimizer = make_optimizer(
        model,
        recipe.optimizer,
        recipe.lr,
        weight_decay=recipe.weight_decay,
        betas=(0.9, recipe.beta2),
        momentum=recipe.momentum,
        adam_lr=recipe.adam_lr,
        adjust_lr_fn="original",
    )
    schedule = make_schedule(
        recipe.schedule,
        steps=steps,
        warmup=min(recipe.warmup, steps // 3),
        decay=max(1, steps * 6 // 10),
        final=recipe.final,
    )
    return Run(model, optimizer, schedule, windows(ids, recipe.batch_size, seed), recipe.clip)
