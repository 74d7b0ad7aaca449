"""The record: tiny Shakespeare on two cores, a plain GPT beside the recipe of chapter 11.

    python benchmarks/speedrun.py            # the record, also written to data/results
    python benchmarks/speedrun.py --quick    # a first look, not a result

Characters (65), first 90 % of the text to train on, context 64, about 0.8M parameters, float32, as
many threads as torch takes. The baseline is plain torch and nanoGPT's recipe for a CPU, not tuned,
with biases and without clipping: GPT-2's architecture (4 layers, 4 heads, d_model 128), AdamW from
1e-3 to 1e-4 on a cosine after 100 steps of warm-up, 2,000 steps of 12 windows. Ours gets as many
steps as fit into 97 % of the baseline's time, from step times measured first. The two train in
turn, a twentieth of their steps each, so that both meet the same weather. Between the turns both
are evaluated on the whole validation text, each target once, in windows of 64
(`sequential_batches`); the clock counts training alone: batches, passes, optimizer.

Keys of data/results/bench-speedrun.json, beside machine and versions:

- `curves`: {"baseline" | "ours": a list for each seed of [step, seconds, validation loss]};
- `final_loss`: {"baseline" | "ours": a value for each seed}, at the last point of the curves;
- `loss_at_equal_time`: ours at its last point within the seconds of the baseline, for each seed;
- `seconds`: {"reach_the_loss_of_the_baseline": {"baseline" | "ours": seconds for each seed}}, on
  straight lines between the points; `reach_…_time_to_baseline` is the ratio of the medians;
- `intervals`: 95 % by Student's t over the seeds: [low, high] of `final_loss_baseline`,
  `loss_at_equal_time`, `time_ratio`;
- `left_out`: {"nothing" | ingredient: final loss for each of fewer seeds}, each recipe in a quarter
  of the baseline's time (`left_out_seconds`), where the ingredient gives way to the baseline's;
- `steps`, `left_out_steps`, `parameters`: {name: number}; `seeds`, `left_out_seeds`, `threads`.

The last line is one JSON object.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _measure import machine, ratio, record
from torch import Tensor, nn

from llmtutor.data.batches import random_batches, sequential_batches
from llmtutor.data.corpora import load_corpus
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.layers.ngram import NgramEmbedding
from llmtutor.model.presets import build, preset
from llmtutor.optim import Schedule, make_optimizer, make_schedule
from llmtutor.tokenizer import CharTokenizer

CONTEXT = 64
BASELINE_STEPS = 2000
SHARE = 0.97  # of the baseline's time, so that ours ends before it also when the machine wavers
POINTS = 20
SEEDS = 5
LEFT_OUT_SEEDS = 2
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # of Student's t, by degrees of freedom
WORK = "reach_the_loss_of_the_baseline"
AIMS = {"time ratio": 0.25, "loss at equal time": 1.60}

Curve = list[tuple[int, float, float]]


# The baseline ------------------------------------------------------------------------------------


class GPTBlock(nn.Module):
    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.output = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up, self.down = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm_1(x)).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(heads.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """GPT-2's architecture in plain torch, the faster of its two GELUs."""

    def __init__(self, vocab_size: int, d_model: int = 128, n_layers: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Parameter(torch.empty(CONTEXT, d_model))
        self.blocks = nn.Sequential(*(GPTBlock(d_model, 4) for _ in range(n_layers)))
        self.norm = nn.LayerNorm(d_model)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                writes = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * n_layers) if writes else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.blocks(self.tokens(ids) + self.positions[: ids.shape[1]])
        return F.linear(self.norm(x), self.tokens.weight)


@dataclass
class Run:
    """A model on its way: one call of ``train`` makes some steps, the clock runs only there."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    batches: Iterator[tuple[Tensor, Tensor]]
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
            self.optimizer.step()
            self.step += 1
        self.seconds += time.perf_counter() - start

    def evaluate(self, ids: np.ndarray) -> None:
        loss = evaluate_loss(self.model, sequential_batches(ids, 64, CONTEXT)).nats_per_token
        self.curve.append((self.step, round(self.seconds, 3), round(loss, 4)))


def baseline(ids: np.ndarray, vocab_size: int, steps: int, seed: int) -> Run:
    torch.manual_seed(seed)
    model = GPT(vocab_size)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, 1e-3, (0.9, 0.99), weight_decay=0.1, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = make_schedule("warmup_cosine", steps=steps, warmup=min(100, steps // 10), final=0.1)
    return Run(model, optimizer, schedule, windows(ids, 12, seed))


def windows(ids: np.ndarray, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return random_batches(ids, batch_size, CONTEXT, generator=generator)


# Ours --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """The ingredients, each of which can be left out."""

    n_layers: int = 2
    d_ff: int = 384
    parts: str = "llama"
    rows: tuple[int, ...] = (1536, 2048)
    zero_init: bool = True
    optimizer: str = "muon"
    lr: float = 0.014
    momentum: float = 0.9
    adam_lr: float = 0.01
    weight_decay: float = 0.0
    batch_size: int = 32
    schedule: str = "wsd"
    final: float = 0.0


RECIPE = Recipe()
LEFT_OUT: Mapping[str, Recipe] = {
    "nothing": RECIPE,
    "n-gram embedding": replace(RECIPE, rows=()),
    "Muon": replace(RECIPE, optimizer="adamw", lr=3e-3),
    "two blocks instead of four": replace(RECIPE, n_layers=4, d_ff=512),
    "parts of Llama": replace(RECIPE, parts="gpt2"),
    "zeros at the start": replace(RECIPE, zero_init=False),
    "batch of 32 windows": replace(RECIPE, batch_size=12),
    "decay to zero": replace(RECIPE, schedule="warmup_cosine", final=0.1),
}
PARTS: Mapping[str, Mapping[str, object]] = {
    # torch has a fused kernel for LayerNorm on CPUs and none for RMSNorm
    "llama": {
        "ffn": "relu2",
        "norm": "layernorm",
        "rope_pairing": "interleaved",
        "rope_base": 1000.0,
        "init": "glorot",
    },
    "gpt2": {},
}


def ours(recipe: Recipe, ids: np.ndarray, vocab_size: int, steps: int, seed: int) -> Run:
    torch.manual_seed(seed)
    shape = {"n_layers": recipe.n_layers, "d_model": 128, "n_heads": 4, "d_ff": recipe.d_ff}
    sizes = {"vocab_size": vocab_size, "max_seq_len": CONTEXT, "tie_weights": False}
    model = build(preset(recipe.parts, **sizes, **shape, **PARTS[recipe.parts]))
    # Look-ups cost nothing, so half of the parameters are rows for the last two and three tokens.
    model.embedding = NgramEmbedding(vocab_size, 128, recipe.rows)
    for table in model.embedding.parameters():
        nn.init.normal_(table, std=0.02)
    if recipe.zero_init:  # each block begins as the identity, and the logits are all equal
        for name, p in model.named_parameters():
            if name.endswith(("mixer.output.weight", "ffn.down.weight", "head.weight")):
                nn.init.zeros_(p)
    optimizer = make_optimizer(
        model,
        recipe.optimizer,
        recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        adam_lr=recipe.adam_lr,
        adjust_lr_fn="original",
    )
    schedule = make_schedule(
        recipe.schedule,
        steps=steps,
        warmup=min(10, steps // 10),
        decay=steps * 6 // 10,
        final=recipe.final,
    )
    return Run(model, optimizer, schedule, windows(ids, recipe.batch_size, seed))


# The record --------------------------------------------------------------------------------------

Start = Callable[[int, int], Run]  # of steps and seed


def step_seconds(starts: Mapping[str, Start], rounds: int) -> dict[str, float]:
    """Median seconds of a step of each, in turn, after a warm-up."""
    runs = {name: start(10_000, 0) for name, start in starts.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before = run.seconds
            run.train(run.step + 10)
            times[name].append((run.seconds - before) / 10)
    return {name: median(values[1:]) for name, values in times.items()}


def race(
    starts: Mapping[str, Start], steps: Mapping[str, int], seed: int, valid: np.ndarray, points: int
) -> dict[str, Curve]:
    """All runs of a seed in turn, a part of their steps at a time."""
    runs = {name: start(steps[name], seed) for name, start in starts.items()}
    for point in range(1, points + 1):
        for name, run in runs.items():
            run.train(steps[name] * point // points)
            run.evaluate(valid)
    return {name: run.curve for name, run in runs.items()}


def seconds_to(curve: Curve, loss: float) -> float:
    """When the curve falls to ``loss``, on straight lines between its points; inf if never.

    >>> seconds_to([(1, 10.0, 3.0), (2, 20.0, 2.0)], 2.5)
    15.0
    """
    for (_, t0, high), (_, t1, low) in pairwise([(0, 0.0, math.inf), *curve]):
        if low <= loss:
            return t1 if high == math.inf else t0 + (t1 - t0) * (high - loss) / (high - low)
    return math.inf


def interval(values: list[float]) -> list[float]:
    """95 % interval of the mean by Student's t."""
    half = T_975[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return [round(mean(values) - half, 4), round(mean(values) + half, 4)]


def starter(recipe: Recipe, ids: np.ndarray, vocab_size: int) -> Start:
    return lambda steps, seed: ours(recipe, ids, vocab_size, steps, seed)


def record_runs(
    starts: Mapping[str, Start], valid: np.ndarray, quick: bool
) -> tuple[dict[str, list[Curve]], dict[str, int]]:
    """Baseline and ours, seed by seed: their curves and numbers of steps."""
    total = BASELINE_STEPS // (20 if quick else 1)
    each = step_seconds(starts, rounds=5 if quick else 15)
    steps = {"baseline": total, "ours": int(SHARE * total * each["baseline"] / each["ours"])}
    curves: dict[str, list[Curve]] = {name: [] for name in starts}
    for seed in range(2 if quick else SEEDS):
        for name, curve in race(starts, steps, seed, valid, 5 if quick else POINTS).items():
            curves[name].append(curve)
            step, seconds, loss = curve[-1]
            print(f"  seed {seed}  {name:9}{step:6} steps{seconds:8.2f} s   loss {loss:.4f}")
    return curves, steps


def figures(curves: Mapping[str, list[Curve]]) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What the curves say, and the seconds to the final loss of the baseline."""
    pairs = list(zip(curves["baseline"], curves["ours"], strict=True))
    equal = [
        [loss for _, seconds, loss in our if seconds <= base[-1][1]][-1] for base, our in pairs
    ]
    reach = {
        "baseline": [base[-1][1] for base, _ in pairs],
        "ours": [round(seconds_to(our, base[-1][2]), 3) for base, our in pairs],
    }
    final = {name: [curve[-1][2] for curve in of_seeds] for name, of_seeds in curves.items()}
    shown = {
        "final_loss_baseline": final["baseline"],
        "loss_at_equal_time": equal,
        "time_ratio": [b / a for a, b in zip(*reach.values(), strict=True)],
    }
    print(f"\nMean and 95 % interval over {len(pairs)} seeds; the aims are {AIMS}")
    for name, values in shown.items():
        low, high = interval(values)
        print(f"  {name:22}{mean(values):8.3f}   {low:.3f} … {high:.3f}")
    return {
        f"{WORK}_time_to_baseline": ratio(reach, "ours"),
        "final_loss": final,
        "loss_at_equal_time": equal,
        "intervals": {name: interval(values) for name, values in shown.items()},
    }, reach


def left_out(
    ids: np.ndarray, valid: np.ndarray, vocab_size: int, seconds: float, seeds: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Final losses and steps. All get the same time: an ingredient that saves time is paid."""
    starts = {name: starter(recipe, ids, vocab_size) for name, recipe in LEFT_OUT.items()}
    steps = {name: int(seconds / each) for name, each in step_seconds(starts, rounds=6).items()}
    losses: dict[str, list[float]] = {name: [] for name in starts}
    for seed in range(seeds):
        for name, curve in race(starts, steps, seed, valid, points=1).items():
            losses[name].append(curve[-1][2])
    print(f"\nLeft out, {seconds:.1f} s of training each; number of seeds: {seeds}")
    for name, values in losses.items():
        loss, share = mean(values), mean(values) - mean(losses["nothing"])
        print(f"  {name:26}{steps[name]:6} steps   loss {loss:.3f}{share:+8.3f}")
    return losses, steps


def main(quick: bool) -> None:
    about = machine("torch", "numpy")
    corpus = load_corpus("tinyshakespeare")
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.valid)
    n = tokenizer.vocab_size
    ids, valid = (np.array(tokenizer.encode(text)) for text in (corpus.train, corpus.valid))
    if quick:
        print("QUICK: a twentieth of the steps. A first look, not a result.")
        valid = valid[:20_000]
    starts: dict[str, Start] = {
        "baseline": lambda steps, seed: baseline(ids, n, steps, seed),
        "ours": starter(RECIPE, ids, n),
    }
    sizes = {
        name: sum(p.numel() for p in start(100, 0).model.parameters())
        for name, start in starts.items()
    }
    print(f"{torch.get_num_threads()} threads, parameters: {sizes}")
    curves, steps = record_runs(starts, valid, quick)
    result, reach = figures(curves)
    quarter = mean(reach["baseline"]) / 4
    losses, left_out_steps = left_out(ids, valid, n, quarter, 1 if quick else LEFT_OUT_SEEDS)
    result = {"benchmark": "speedrun", "quick": quick, **result, "left_out": losses}
    if not quick:
        record(
            "speedrun",
            {**result, **about, "threads": torch.get_num_threads(), "parameters": sizes},
            {WORK: reach},
            seeds=SEEDS,
            steps=steps,
            left_out_seeds=LEFT_OUT_SEEDS,
            left_out_steps=left_out_steps,
            left_out_seconds=round(quarter, 2),
            curves=curves,
        )
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--quick"]):
        main(quick="--quick" in sys.argv)
    else:
        sys.exit(__doc__)
