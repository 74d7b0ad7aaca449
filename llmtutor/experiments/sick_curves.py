"""Chapter 11, training: curves that are ill, each by one defect that is put in on purpose.

A small transformer reads Shakespeare by the character. Each illness changes one thing of a healthy
run and keeps its seed, so that both begin with the same weights. Losses are measured as the ill
program itself would measure them, and once more, at the end, as they should be.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from llmtutor.checks import check_name
from llmtutor.evaluate.compare import Comparison, compare_family
from llmtutor.evaluate.perplexity import LossReport
from llmtutor.experiments.curve import in_means, spread_windows
from llmtutor.experiments.study import Record, Study
from llmtutor.experiments.training import model_config, schedule, tokens
from llmtutor.model.language_modelling import NGram
from llmtutor.model.losses import Batch
from llmtutor.model.presets import build
from llmtutor.optim import Schedule, make_optimizer
from llmtutor.optim.schedules import warmup_cosine
from llmtutor.train.step import set_learning_rate

STUDY = "sick-curves"
D_MODEL, N_LAYERS = 32, 2
STEPS, BATCH, SEQ_LEN = 300, 16, 32
LR = 0.01
EVERY = 25
"""Steps between two validations."""
VALID_WINDOWS = 200
POINTS = 60
"""Of a curve, each the mean of as many steps."""
SEEDS = 3
HEALTHY = "healthy"
COUNTS = {"unigram": 1, "bigram": 2, "trigram": 3}
"""Models that count, by their order."""


@dataclass(frozen=True)
class Illness:
    """What differs from a healthy run."""

    cause: str = ""
    """In a few words, as a reader would name it."""
    lr: float = LR
    warmup: bool = True
    weight_decay: float = 0.1
    forget: bool = True
    """Whether the gradient is set to zero before each step."""
    shift: int = 1
    """Places by which targets are ahead of inputs."""
    characters: int | None = None
    """So many first ones of the text are all there is to train on."""
    in_order: bool = False
    """Whether windows come sorted, those with the most small letters first."""
    dead: bool = False
    """Whether every matrix begins at zero."""


ILLNESSES: Mapping[str, Illness] = {
    HEALTHY: Illness("nothing"),
    "rate": Illness("a learning rate 50 times too high", lr=50 * LR),
    "order": Illness("windows that come sorted", in_order=True),
    "leak": Illness("targets that are the inputs", shift=0),
    "pile": Illness("a gradient that is never set to zero", forget=False),
    "decay": Illness("a weight decay 100 times too large", weight_decay=10.0),
    "dead": Illness("all matrices zero at the start", dead=True),
    "little": Illness("4,000 characters of text, again and again", characters=4000),
}
WARM: Mapping[str, Illness] = {
    "steep, warmed up": Illness("six times the rate, with warm-up", lr=6 * LR),
    "steep, cold": Illness("six times the rate, without", lr=6 * LR, warmup=False),
}
"""Not ill at the healthy rate: a pair at a higher one."""
ALL = {**ILLNESSES, **WARM}


def windows(ids: np.ndarray, illness: Illness, seed: int) -> Iterator[Batch]:
    """The batches of a run, in their order."""
    ids = ids[: illness.characters]
    generator = np.random.default_rng(seed)
    starts = generator.integers(len(ids) - SEQ_LEN, size=STEPS * BATCH)
    if illness.in_order:
        starts = starts[np.argsort(-mean_ids(ids, starts), kind="stable")]
    for some in starts.reshape(STEPS, BATCH):
        rows = torch.from_numpy(ids[some[:, None] + np.arange(SEQ_LEN + 1)].astype(np.int64))
        yield shifted(rows, illness.shift)


def shifted(rows: torch.Tensor, shift: int) -> Batch:
    """Inputs and targets from rows of SEQ_LEN + 1 ids.

    >>> [t.tolist() for t in shifted(torch.tensor([[1, 2, 3]]), 1)]
    [[[1, 2]], [[2, 3]]]
    """
    seq_len = rows.shape[1] - 1
    return rows[:, :seq_len], rows[:, shift : shift + seq_len]


def mean_ids(ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of each window. Small letters have the largest ids, capitals and signs the smaller ones.

    >>> mean_ids(np.array([*[0] * 16, *[4] * 32]), np.array([0, 16])).tolist()
    [2.0, 4.0]
    """
    before = np.concatenate([[0], np.cumsum(ids, dtype=np.int64)])
    return np.asarray((before[starts + SEQ_LEN] - before[starts]) / SEQ_LEN)


def gradient_norm(model: nn.Module) -> float:
    """Of the whole gradient."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return float(nn.utils.get_total_norm(grads))


def make_model(vocab_size: int, seed: int, dead: bool = False) -> nn.Module:
    """The model of all runs, its weights from ``seed`` or all zero."""
    torch.manual_seed(seed)
    model = build(model_config(D_MODEL, N_LAYERS, vocab_size))
    if dead:
        for p in model.parameters():
            if p.ndim == 2:
                nn.init.zeros_(p)
    return model


def loss_of(model: nn.Module, ids: np.ndarray, shift: int) -> float:
    """Nats a character on held-out windows, in the way that ``shift`` says."""
    total = count = 0.0
    with torch.no_grad():
        for inputs, following in spread_windows(ids, VALID_WINDOWS, SEQ_LEN):
            targets = following if shift else inputs
            total += float(F.cross_entropy(model(inputs).mT, targets, reduction="sum"))
            count += targets.numel()
    return total / count


def train_ill(name: str, seed: int) -> dict[str, Any]:
    """One run with its defect: what its own program reports on the way, and the truth at the end.

    Raises:
        ValueError: an unknown illness.
    """
    illness = ALL[check_name("illness", name, ALL)]
    train, valid, vocab_size = tokens()
    model = make_model(vocab_size, seed, illness.dead)
    optimizer = make_optimizer(model, "adamw", illness.lr, weight_decay=illness.weight_decay)
    factor: Schedule = schedule(STEPS) if illness.warmup else warmup_cosine(STEPS, 0, 0.1)
    losses: list[float] = []
    norms: list[float] = []
    marks = {0: loss_of(model, valid, illness.shift)}
    for step, (inputs, targets) in enumerate(windows(train, illness, seed)):
        set_learning_rate(optimizer, factor(step))
        if illness.forget:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs).mT, targets)
        loss.backward()
        norms.append(gradient_norm(model))
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % EVERY == 0:
            marks[step + 1] = loss_of(model, valid, illness.shift)
    honest = LossReport(loss_of(model, valid, shift=1), VALID_WINDOWS * SEQ_LEN)
    return {
        "first_loss": round(losses[0], 4),
        "curve": in_means(losses, POINTS),
        "grad_norm": in_means(norms, POINTS)["loss"],
        "marks": {"step": list(marks), "loss": [round(loss, 4) for loss in marks.values()]},
        "valid_loss": round(honest.nats_per_token, 5),
        "bits_per_byte": round(honest.bits_per_byte(honest.n_tokens), 5),
    }


def ill_run(*, illness: str, seed: int) -> dict[str, Any]:
    """A run, or a model that counts, to compare with."""
    if illness not in COUNTS:
        return train_ill(illness, seed)
    train, valid, vocab_size = tokens()
    counted = NGram(COUNTS[illness], vocab_size).fit(train)
    report = LossReport(counted.loss(valid), len(valid) - 1)
    return {
        "valid_loss": round(report.nats_per_token, 5),
        "bits_per_byte": round(report.bits_per_byte(report.n_tokens), 5),
    }


def by_seed(record: Record, illness: str) -> dict[int, float]:
    """Bits per byte of the true task, by seed."""
    return {
        run["settings"]["seed"]: run["result"]["bits_per_byte"]
        for run in record.runs
        if run["settings"]["illness"] == illness
    }


def verdicts(record: Record) -> dict[str, Comparison]:
    """Each illness against the healthy run, and the cold start against the warmed up one."""
    ill = {name: by_seed(record, name) for name in ILLNESSES if name != HEALTHY}
    warm, cold = (by_seed(record, name) for name in WARM)
    against = compare_family(ill, by_seed(record, HEALTHY))
    return against | compare_family({"cold": cold}, warm)


SICK_CURVES = Study(
    name=STUDY,
    description="Training curves of a small transformer, each with one defect put in on purpose",
    runs=lambda plan: [
        *({"illness": name, "seed": 0} for name in COUNTS),
        *({"illness": name, "seed": seed} for seed in range(SEEDS) for name in ALL),
    ],
    run=ill_run,
)
