"""Chapters 05 and 06, positions and rope: seven schemes on text and on a puzzle of places.

On text, models that differ in nothing else are trained in windows of 64 characters, each at its own
best learning rate, and read held-out windows of four times that length. The puzzle asks for letters
again, forwards or backwards. Last, models with RoPE are made to read farther: by turning more
slowly, and by a little more training.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import product
from operator import itemgetter
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.data.batches import random_batches
from llmtutor.evaluate.referee import loss_by_position
from llmtutor.experiments.curve import spread_windows, train_curve
from llmtutor.experiments.needle import Answers
from llmtutor.experiments.rates import Reading, best_rates
from llmtutor.experiments.study import Study, load_record
from llmtutor.experiments.training import SEQ_LEN, model_config, schedule, tokens
from llmtutor.layers.positions import RopeConfig
from llmtutor.layers.positions.rope_scaling import (
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
    RopeScaling,
    YarnScaling,
)
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

SCHEMES = ("none", "learned", "sinusoidal", "t5", "alibi", "shaw", "rope")
D_MODEL, N_LAYERS, N_HEADS = 48, 3, 3
BATCH, STEPS = 16, 3200
LONG = 4 * SEQ_LEN
"""The table of learned positions has as many rows; those beyond SEQ_LEN are never trained."""
PIECE = 8
"""Neighbouring positions whose mean loss is kept."""
WINDOWS = 400
RATES = (0.002, 0.004, 0.008, 0.016, 0.032)
TUNING_SEED, SEEDS = 100, 5

LETTERS, ASKED = 12, 6
"""Of the puzzle: different letters, and how many are given and asked for."""
PUZZLE_STEPS, PUZZLE_BATCH, PUZZLE_WIDTH = 3000, 32, 32
PUZZLE_MARKS = (250, 500, 1000, 2000, 3000)
PUZZLE_RATES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)
PUZZLE_SEEDS = 3

FACTOR = LONG // SEQ_LEN
SCALINGS: Mapping[str, RopeScaling | None] = {
    "no scaling": None,
    "interpolation": LinearScaling(FACTOR),
    "NTK-aware": NtkScaling(FACTOR, SEQ_LEN),
    "YaRN": YarnScaling(FACTOR, SEQ_LEN),
    "Llama 3": Llama3Scaling(FACTOR, SEQ_LEN),
}
MORE_STEPS, MORE_BATCH = 200, 4
"""Of further training in long windows: a sixteenth of the text that the model has read."""
MORE_RATE = 0.25
"""The peak of it, as a part of the peak before."""


def scheme_config(scheme: str, vocab_size: int, width: int = D_MODEL) -> ModelConfig:
    """The model of the study with this scheme; sinusoids come with the embedding times √d."""
    check_name("scheme", scheme, SCHEMES)
    config = model_config(
        width, N_LAYERS, vocab_size, max_seq_len=LONG, n_heads=N_HEADS if width == D_MODEL else 4
    )
    if scheme == "sinusoidal":
        return config.replace(position=scheme, embedding_scale=math.sqrt(width))
    return config.replace(position=scheme)


def in_pieces(model: nn.Module, batches: Iterator[Batch]) -> list[float]:
    """The mean loss of every PIECE neighbouring positions, in nats."""
    losses = loss_by_position(model, batches)
    return [round(float(loss), 4) for loss in losses.view(-1, PIECE).mean(1)]


def trained(scheme: str, lr: float, seed: int, seq_len: int = SEQ_LEN) -> Transformer:
    """Trained on Shakespeare's characters, as many of them whatever the length of a window."""
    train, _, vocab_size = tokens()
    torch.manual_seed(seed)
    model = build(scheme_config(scheme, vocab_size))
    generator = torch.Generator().manual_seed(seed)
    rows = BATCH * SEQ_LEN // seq_len
    batches = random_batches(train, rows, seq_len, generator=generator)
    train_curve(model, batches, steps=STEPS, lr=lr, schedule=schedule(STEPS))
    return model


def both_lengths(model: nn.Module) -> dict[str, Any]:
    """Loss by position in windows of the trained length and of LONG."""
    _, valid, _ = tokens()
    short, long = (in_pieces(model, spread_windows(valid, WINDOWS, n)) for n in (SEQ_LEN, LONG))
    return {"valid_loss": round(sum(short) / len(short), 5), "short": short, "long": long}


def text_run(*, scheme: str, lr: float, seed: int) -> dict[str, Any]:
    """Train with one scheme; models of a seed see the same batches."""
    model = trained(scheme, lr, seed)
    return {"n_params": parameters(model.config).total, **both_lengths(model)}


def puzzles(
    texts: int, generator: torch.Generator
) -> tuple[Int[Tensor, "texts seq"], Int[Tensor, "texts asked"]]:
    """Letters, a sign, and all but the last of the answer; and the answer.

    In even rows the sign LETTERS asks for the letters again, in odd rows LETTERS + 1 asks for them
    backwards.
    """
    letters = torch.randint(LETTERS, (texts, ASKED), generator=generator)
    backwards = (torch.arange(texts) % 2)[:, None]
    answer = torch.where(backwards == 1, letters.flip(1), letters)
    return torch.cat((letters, LETTERS + backwards, answer[:, :-1]), dim=1), answer


def puzzle_run(*, scheme: str, lr: float, seed: int) -> dict[str, Any]:
    """Learn to copy and to reverse; the share of right letters of each, at the end."""
    torch.manual_seed(seed)
    model = Answers(build(scheme_config(scheme, LETTERS + 2, PUZZLE_WIDTH)), ASKED)
    generator = torch.Generator().manual_seed(seed)
    test, answers = puzzles(1000, torch.Generator().manual_seed(10**6))
    curve = train_curve(
        model,
        (puzzles(PUZZLE_BATCH, generator) for _ in range(PUZZLE_STEPS)),
        steps=PUZZLE_STEPS,
        lr=lr,
        schedule=schedule(PUZZLE_STEPS),
        held_out=lambda: [(test, answers)],
        marks=PUZZLE_MARKS,
    )
    with torch.no_grad():
        right = (model(test).argmax(-1) == answers).double().mean(1)
    return {
        "copy": round(float(right[0::2].mean()), 4),
        "reverse": round(float(right[1::2].mean()), 4),
        "valid_loss": round(curve.marks[PUZZLE_STEPS], 5),
        "marks": {str(step): round(loss, 4) for step, loss in curve.marks.items()},
    }


def extension_run(*, lr: float, seed: int) -> dict[str, Any]:
    """Train with RoPE in short windows, then read long ones, before and after more training."""
    train, _, _ = tokens()
    model = trained("rope", lr, seed)
    found: dict[str, Any] = {}
    for name, scaling in SCALINGS.items():
        slowed = build(model.config.replace(position=RopeConfig(scaling=scaling)))
        slowed.load_state_dict(model.state_dict())
        before = both_lengths(slowed)
        generator = torch.Generator().manual_seed(seed)
        train_curve(
            slowed,
            random_batches(train, MORE_BATCH, LONG, generator=generator),
            steps=MORE_STEPS,
            lr=lr * MORE_RATE,
            schedule=schedule(MORE_STEPS),
        )
        found[name] = {"before": before, "after": both_lengths(slowed)}
    found["long from the start"] = both_lengths(trained("rope", lr, seed, LONG))
    return found


def while_learning(result: Mapping[str, Any]) -> float:
    """The mean loss of a run over PUZZLE_MARKS; at the end some schemes are right at any rate."""
    return sum(result["marks"].values()) / len(result["marks"])


def _plan(name: str, loss: Reading) -> Any:
    def plan(written: Mapping[str, Any]) -> dict[str, Any]:
        return {} if written else {"lr": best_rates(load_record(name), "scheme", SCHEMES, loss)}

    return plan


POSITIONS = (
    Study(
        name="positions-rates",
        description="Position schemes on Shakespeare's characters: a learning rate for each",
        runs=lambda plan: [
            {"scheme": scheme, "lr": lr, "seed": TUNING_SEED}
            for scheme, lr in product(SCHEMES, RATES)
        ],
        run=text_run,
    ),
    Study(
        name="positions",
        description="Seven position schemes on text: loss by position, to four times the length",
        plan=_plan("positions-rates", itemgetter("valid_loss")),
        runs=lambda plan: [
            {"scheme": scheme, "lr": plan["lr"][scheme], "seed": seed}
            for seed, scheme in product(range(SEEDS), SCHEMES)
        ],
        run=text_run,
    ),
    Study(
        name="places-rates",
        description="Letters again and backwards: a learning rate for each position scheme",
        runs=lambda plan: [
            {"scheme": scheme, "lr": lr, "seed": TUNING_SEED}
            for scheme, lr in product(SCHEMES, PUZZLE_RATES)
        ],
        run=puzzle_run,
    ),
    Study(
        name="places",
        description="Letters said again and backwards by seven position schemes",
        plan=_plan("places-rates", while_learning),
        runs=lambda plan: [
            {"scheme": scheme, "lr": plan["lr"][scheme], "seed": seed}
            for seed, scheme in product(range(PUZZLE_SEEDS), SCHEMES)
        ],
        run=puzzle_run,
    ),
    Study(
        name="context-extension",
        description="RoPE trained on 64 characters reads 256: scalings, before and after training",
        plan=lambda written: {} if written else {"lr": load_record("positions").plan["lr"]["rope"]},
        runs=lambda plan: [{"lr": plan["lr"], "seed": seed} for seed in range(SEEDS)],
        run=extension_run,
    ),
)
