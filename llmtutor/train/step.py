"""Chapter 11, training: one step, from micro-batches to new weights.

The loss of a step is the mean over *all* its tokens. Each micro-batch is therefore divided by the
tokens of the step: a mean of means is another number as soon as micro-batches differ in length.
Gradients add up in ``.grad`` from one backward pass to the next, so one micro-batch after the other
gives the same step as all of them at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llmtutor.model.losses import Batch, Loss, Losses, batch_losses
from llmtutor.optim.clip import clip_grad_norm
from llmtutor.train.diagnose import first_non_finite
from llmtutor.train.distributed import accumulating, unwrap
from llmtutor.train.hooks import after_step


@dataclass(frozen=True)
class StepMetrics:
    """What a step has seen, before its update."""

    loss: float
    """Mean over the tokens of this process, in nats."""
    grad_norm: float
    """Norm of the whole gradient before clipping."""
    n_tokens: int
    """Tokens predicted by this process."""
    auxiliary: dict[str, float] = field(default_factory=dict)
    """Terms of the layers, which the gradient contains and ``loss`` does not."""
    statistics: dict[str, float | list[float]] = field(default_factory=dict)
    """Figures of the layers."""


class NonFiniteLoss(ValueError):  # noqa: N818
    """The loss or the gradient is infinite or not a number; no weight has been touched."""


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Each group's learning rate is ``factor`` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def train_step(
    model: nn.Module,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    clip: float | None = None,
    precision: torch.dtype = torch.float32,
    step: int | None = None,
    loss: Loss = batch_losses,
) -> StepMetrics:
    """Lower the loss on ``batches``, the micro-batches of one step (inputs, targets).

    With ``precision=torch.bfloat16`` the products are taken in that format and the loss in
    float32; weights, gradients and the optimizer keep theirs. ``step`` is for the message only.
    ``loss`` may be another function with the same result, such as a compiled one.

    Raises:
        NonFiniteLoss: naming ``step`` and the first layer whose output or gradient is not finite.
        ValueError: no batch.
    """
    if not batches:
        raise ValueError("a step needs at least one batch, got none")
    n_tokens = sum(targets.numel() for _, targets in batches)
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64)
    parts: list[tuple[float, Losses]] = []
    for i, batch in enumerate(batches):
        with accumulating(model, last=i == len(batches) - 1):
            losses = loss(model, batch, precision)
            (losses.total / n_tokens).backward()
        total += losses.nats.detach().double().cpu() / n_tokens
        parts.append((batch[1].numel() / n_tokens, losses))
    norm = float(clip_grad_norm(model.parameters(), math.inf if clip is None else clip))
    if not math.isfinite(norm) or not math.isfinite(total):
        where = first_non_finite(
            unwrap(model), lambda m, b: batch_losses(m, b, precision).total, batches
        )
        at = "" if step is None else f"step {step}: "
        raise NonFiniteLoss(
            f"{at}the loss is {total.item():g} and the norm of the gradient {norm:g}: {where}; "
            "the weights are as before this step. A lower learning rate, clipping or a longer "
            "warm-up may help"
        )
    optimizer.step()
    auxiliary = _means([(weight, losses.auxiliary) for weight, losses in parts])
    statistics = _means([(weight, losses.statistics) for weight, losses in parts])
    after_step(unwrap(model), statistics)
    return StepMetrics(total.item(), norm, n_tokens, auxiliary, statistics)


def _means(parts: Sequence[tuple[float, dict[str, Tensor]]]) -> dict[str, Any]:
    """Means over the micro-batches, each with its weight, as plain numbers (or lists of them)."""
    return {
        name: torch.stack([weight * each[name].detach().double() for weight, each in parts])
        .sum(0)
        .tolist()
        for name in parts[0][1]
    }
