"""Options of an architecture at ten million parameters, beyond the sizes that a CPU trains.

Stories whose entropy is known, as many as are read once or a few times. One seed after the other,
the options in the order of the study; no run is begun that would not end within the limit. Learning
rates are those of the smallest size of ``choosing``, divided by how much wider the model is. The
stories of ``tinystories-sample`` are too few for this size: a model would read them eighty times.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _gpu.device import name_of, wait_for

from llmtutor.data.corpora import DOCUMENT_BREAK
from llmtutor.data.tales import floor, generate
from llmtutor.experiments.choosing.options import SIZES, Size
from llmtutor.experiments.choosing.plan import LARGE, NAME
from llmtutor.experiments.choosing.trial import Texts, counts, final_loss, parted, train_option
from llmtutor.experiments.study import load_record
from llmtutor.model.losses import Batch, Losses, batch_losses

LIMIT = 560
"""Seconds after which nothing is begun that would take longer than what is left."""
SEEDS = 3
RATE = 0.016
"""At the smallest size, where no study says it."""


@dataclass(frozen=True)
class Plan:
    """What is trained on what."""

    size: Size
    n_stories: int
    n_held_out: int
    options: tuple[str, ...]
    seeds: int


LARGE_PLAN = Plan(
    Size(320, n_layers=8, n_heads=8, vocab_size=2048, seq_len=512, batch_size=64),
    n_stories=300_000,
    n_held_out=1500,
    options=LARGE,
    seeds=SEEDS,
)
TRIAL = Plan(
    Size(16, n_layers=4, vocab_size=300, seq_len=32, batch_size=16, tokens_per_parameter=1),
    n_stories=200,
    n_held_out=40,
    options=LARGE[:3],
    seeds=1,
)


def rates(size: Size) -> dict[str, float]:
    """Rates by option, from the study as far as it has them; the others take the baseline's."""
    try:
        known = load_record(NAME).plan["learning_rate"]["small"]
    except (ValueError, KeyError):
        known = {}
    factor = SIZES["small"].d_model / size.d_model
    default = known.get("baseline", RATE)
    return {name: round(known.get(name, default) * factor, 6) for name in LARGE}


def half(model: torch.nn.Module, batch: Batch, precision: torch.dtype) -> Losses:
    """Products in bfloat16."""
    return batch_losses(model, batch, torch.bfloat16)


def floor_of(held_out: list[str]) -> float:
    """Bits per byte below which no model can be expected to come."""
    found = floor(held_out, separator=DOCUMENT_BREAK)
    return found.nats / np.log(2) / found.n_chars


def one_run(plan: Plan, text: Texts, option: str, seed: int, device: str) -> dict[str, Any]:
    began = time.monotonic()
    lr = rates(plan.size)[option]
    model, curve = train_option(option, plan.size, lr, seed, text, loss=half, device=device)
    wait_for(device)
    lost = {"valid_loss": None, "bits_per_byte": None}
    final = lost if curve.diverged else final_loss(model, plan.size, text.tokenizer, text.held_out)
    seconds = round(time.monotonic() - began, 1)
    settings = {"option": option, "seed": seed, "lr": lr}
    return {**settings, **counts(model, plan.size, plan.size.steps), **final, "seconds": seconds}


def run(device: str, tiny: bool, report: Callable[[dict[str, Any]], None]) -> None:
    began = time.monotonic()
    plan = TRIAL if tiny else LARGE_PLAN
    stories, held_out = generate(plan.n_stories, 1), generate(plan.n_held_out, 2)
    text = parted(stories, held_out, plan.size.vocab_size)
    bound = floor_of(held_out)
    report({"device": name_of(device), "floor": bound, "train_tokens": len(text.train)})
    runs: list[dict[str, Any]] = []
    for seed in range(plan.seeds):
        for option in plan.options:
            longest = max((made["seconds"] for made in runs), default=0)
            if time.monotonic() - began + 1.5 * longest > LIMIT:
                continue
            runs.append(one_run(plan, text, option, seed, device))
            report(summary(runs, bound))


def summary(runs: list[dict[str, Any]], bound: float) -> dict[str, Any]:
    by_option: dict[str, list[dict[str, Any]]] = {}
    for made in runs:
        by_option.setdefault(made["option"], []).append(made)
    rows = []
    for option, of_it in by_option.items():
        losses = [one["bits_per_byte"] for one in of_it if one["bits_per_byte"] is not None]
        mean = f"{np.mean(losses):.4f}" if losses else "diverged"
        above = f"{np.mean(losses) - bound:.4f}" if losses else ""
        seconds = f"{np.mean([one['seconds'] for one in of_it]):.0f} s"
        rows.append([option, f"{of_it[0]['n_params']:,}", str(len(losses)), mean, above, seconds])
    whole = all(one["bits_per_byte"] is not None for one in runs)
    return {
        "runs": runs,
        "ok": whole,
        "summary": f"{len(runs)} runs of {len(by_option)} options; the stories' entropy is "
        f"{bound:.4f} bits per byte" + ("" if whole else "; some diverged"),
        "table": [
            ["option", "parameters", "seeds", "bits per byte", "above entropy", "time"],
            *rows,
        ],
    }
