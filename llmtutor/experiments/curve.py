"""Chapter 12, scaling: a model trained by its settings, and the curve that it leaves.

Every study trains here: what differs between two runs is in their settings. Losses are plain ones,
in nats a token.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from llmtutor.evaluate.perplexity import LossReport, evaluate_loss
from llmtutor.model.losses import Batch, Loss, batch_losses
from llmtutor.optim import Schedule, make_optimizer
from llmtutor.train.step import NonFiniteLoss, set_learning_rate, train_step

LOST: Mapping[str, None] = MappingProxyType({"valid_loss": None, "bits_per_byte": None})
"""What is kept of a run that diverged, in the place of what ``rounded`` gives."""


@dataclass(frozen=True)
class Curve:
    """What a run has seen on its way."""

    losses: list[float] = field(default_factory=list)
    """Of the batch of each step, before its update."""
    grad_norms: list[float] = field(default_factory=list)
    """Of the whole gradient of each step, before clipping."""
    statistics: dict[str, list[Any]] = field(default_factory=dict)
    """Figures of the layers by name, such as the load of experts, of each step."""
    marks: dict[int, float] = field(default_factory=dict)
    """Loss on the held-out batches, by the number of steps done."""
    diverged: bool = False
    """Whether it ended before its last step, at a loss or gradient that is no number."""


def train_curve(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int,
    lr: float,
    schedule: Schedule,
    optimizer: str | Callable[[nn.Module, float], Optimizer] = "adamw",
    clip: float | None = 1.0,
    held_out: Callable[[], Iterable[Batch]] | None = None,
    marks: Collection[int] = (),
    loss: Loss = batch_losses,
    device: str | torch.device = "cpu",
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Curve:
    """Train ``model`` in place, one batch (inputs, targets) a step.

    ``lr`` is the peak, of which ``schedule`` gives the part for each step; ``optimizer`` is a name
    of ``make_optimizer``, whose defaults hold where ``settings`` say nothing, or makes one from the
    model and ``lr``. A step lowers
    ``loss``, of which the plain part is recorded. The loss on the ``held_out`` batches is taken
    after as many steps as ``marks`` say, 0 being before the first.

    Raises:
        ValueError: settings out of range; fewer batches than steps.
    """
    model.to(device)
    if isinstance(optimizer, str):
        rule: Optimizer = make_optimizer(model, optimizer, lr, **settings)
    else:
        rule = optimizer(model, lr)
    curve = Curve()

    def mark(done: int) -> None:
        if held_out is not None and done in marks:
            curve.marks[done] = loss_on(model, held_out()).nats_per_token

    mark(0)
    for step, batch in zip(range(steps), placed(batches, device), strict=False):
        set_learning_rate(rule, schedule(step))
        try:
            metrics = train_step(model, [batch], rule, clip=clip, step=step + 1, loss=loss)
        except NonFiniteLoss:
            return replace(curve, diverged=True)
        curve.losses.append(metrics.loss)
        curve.grad_norms.append(metrics.grad_norm)
        for name, figure in metrics.statistics.items():
            curve.statistics.setdefault(name, []).append(figure)
        mark(step + 1)
    if len(curve.losses) < steps:
        raise ValueError(f"expected a batch for each of {steps} steps, got {len(curve.losses)}")
    return curve


def loss_on(model: nn.Module, batches: Iterable[Batch]) -> LossReport:
    """``evaluate_loss``, where the model is."""
    return evaluate_loss(model, placed(batches, next(model.parameters()).device))


def rounded(report: LossReport, n_bytes: float) -> dict[str, float]:
    """What a study keeps of a loss: in nats a token, and in bits a byte of ``n_bytes``."""
    return {
        "valid_loss": round(report.nats_per_token, 5),
        "bits_per_byte": round(report.bits_per_byte(round(n_bytes)), 5),
    }


def in_means(losses: Sequence[float], n: int) -> dict[str, list[float]]:
    """``n`` means of about as many steps each; the step of each is its last.

    >>> in_means([4.0, 3.0, 2.0, 1.0], 2)
    {'step': [2, 4], 'loss': [3.5, 1.5]}
    """
    parts = [part for part in np.array_split(np.array(losses), n) if len(part)]
    ends = np.cumsum([len(part) for part in parts], dtype=int)
    return {"step": ends.tolist(), "loss": [round(float(part.mean()), 4) for part in parts]}


def placed(batches: Iterable[Batch], device: str | torch.device) -> Iterator[Batch]:
    """The same batches on ``device``."""
    for inputs, targets in batches:
        yield inputs.to(device), targets.to(device)


def spread_windows(ids: np.ndarray, n: int, seq_len: int) -> Iterator[Batch]:
    """``n`` windows of ``seq_len`` + 1 ids at even distances, as batches of about 32.

    >>> inputs, targets = next(spread_windows(np.arange(10), n=2, seq_len=3))
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1, 2], [6, 7, 8]], [[1, 2, 3], [7, 8, 9]])
    """
    starts = np.linspace(0, len(ids) - seq_len - 1, n).astype(int)
    for some in np.array_split(starts, max(1, n // 32)):
        rows: Int64[Tensor, "rows seq"] = torch.from_numpy(
            ids[some[:, None] + np.arange(seq_len + 1)].astype(np.int64)
        )
        yield rows[:, :-1], rows[:, 1:]
