"""Chapter 11, training: one step, from micro-batches to new weights.

The loss of a step is the mean over *all* its tokens. Each micro-batch is therefore divided by the
tokens of the step, and not by its own: a mean of means is another number as soon as micro-batches
differ in length. Gradients add up in ``.grad`` from one backward pass to the next, which is why one
micro-batch after the other gives the same step as all of them at once.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional as F

from llmtutor.optim.clip import clip_grad_norm
from llmtutor.train.diagnose import first_non_finite
from llmtutor.train.distributed import accumulating, unwrap

Batch = tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]
Loss = Callable[[nn.Module, Batch, torch.dtype], Tensor]
"""Sum over the tokens of a batch, as ``total_loss`` gives it."""


@dataclass(frozen=True)
class StepMetrics:
    """What a step has seen, before its update."""

    loss: float
    """Mean over the tokens of this process, in nats."""
    grad_norm: float
    """Norm of the whole gradient before clipping."""
    n_tokens: int
    """Tokens predicted by this process."""


class NonFiniteLoss(ValueError):  # noqa: N818
    """The loss or the gradient is infinite or not a number; no weight has been touched."""


def total_loss(model: nn.Module, batch: Batch, precision: torch.dtype = torch.float32) -> Tensor:
    """Sum of −log p(target) over a batch, in nats; the logits are float32 or wider."""
    inputs, targets = batch
    with autocast(inputs.device, precision):
        logits = model(inputs)
    if precision != torch.float32:
        logits = logits.float()
    logits, targets = logits.flatten(0, 1), targets.flatten()
    if torch.compiler.is_compiling():
        return _compiled_cross_entropy(logits, targets)
    return F.cross_entropy(logits, targets, reduction="sum")


def _compiled_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The same, −log p = log Σ exp(logits) − logit, in a form that compiles to fewer passes.

    The logit of the target is found by comparing, whose gradient needs no tensor of zeros to be
    written into. A target that is no token would be found nowhere: there the loss is nan.
    """
    # In int32, of which a CPU compares as many at once as it adds of float32.
    tokens = torch.arange(logits.shape[-1], dtype=torch.int32, device=logits.device)
    hit = tokens == targets[:, None].to(torch.int32)
    chosen = torch.where(hit, logits, 0.0).sum(-1)
    is_token = (targets >= 0) & (targets < logits.shape[-1])
    return (logits.logsumexp(-1) - torch.where(is_token, chosen, math.nan)).sum()


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Products in ``precision``, or nothing at all for float32."""
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)


def train_step(
    model: nn.Module,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    clip: float | None = None,
    precision: torch.dtype = torch.float32,
    step: int | None = None,
    loss: Loss = total_loss,
) -> StepMetrics:
    """Lower the loss on ``batches``, the micro-batches of one step (inputs, targets).

    With ``precision=torch.bfloat16`` the products are taken in that format and the loss in
    float32; weights, gradients and the optimizer keep theirs. ``step`` is for the message only.
    ``loss`` may be ``torch.compile(total_loss)``, one program from ids to loss.

    Raises:
        NonFiniteLoss: naming ``step`` and the first layer whose output or gradient is not finite.
        ValueError: no batch.
    """
    if not batches:
        raise ValueError("a step needs at least one batch, got none")
    n_tokens = sum(targets.numel() for _, targets in batches)
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64)
    for i, batch in enumerate(batches):
        with accumulating(model, last=i == len(batches) - 1):
            part = loss(model, batch, precision) / n_tokens
            part.backward()
        total += part.detach().double().cpu()
    norm = float(clip_grad_norm(model.parameters(), math.inf if clip is None else clip))
    if not math.isfinite(norm) or not math.isfinite(total):
        where = first_non_finite(unwrap(model), lambda m, b: total_loss(m, b, precision), batches)
        at = "" if step is None else f"step {step}: "
        raise NonFiniteLoss(
            f"{at}the loss is {total.item():g} and the norm of the gradient {norm:g}: {where}; "
            "the weights are as before this step. A lower learning rate, clipping or a longer "
            "warm-up may help"
        )
    optimizer.step()
    return StepMetrics(total.item(), norm, n_tokens)
