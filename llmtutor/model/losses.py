"""Chapter 11, training: the loss of a batch, and what is added to it without being it.

The plain loss is −log p(target) in nats. It is the one that is logged, plotted and compared. A
layer may add terms of its own, such as the balance of experts, which a step lowers along with it.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from llmtutor.layers.extras import Extras
from llmtutor.model.transformer import Transformer

Batch = tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]
CrossEntropy = Callable[[Float[Tensor, "tokens vocab"], Int[Tensor, " tokens"]], Tensor]


class Losses(NamedTuple):
    """Of the tokens of one batch."""

    total: Tensor
    """What a step lowers: ``nats``, and for each token the sum of the auxiliary terms."""
    nats: Tensor
    """The plain loss: the sum of −log p(target) over the tokens."""
    auxiliary: dict[str, Tensor]
    """Terms of the layers, each times its weight already, by the layer's name."""
    statistics: dict[str, Tensor]
    """Figures of the layers, to be shown."""


Loss = Callable[[nn.Module, Batch, torch.dtype], Losses]
"""From model, batch and precision to losses, as ``batch_losses``."""


def summed_cross_entropy(
    logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]
) -> Float[Tensor, ""]:
    """Sum of −log softmax(logits)[target]."""
    return F.cross_entropy(logits, targets, reduction="sum")


def batch_losses(
    model: nn.Module,
    batch: Batch,
    precision: torch.dtype = torch.float32,
    cross_entropy: CrossEntropy = summed_cross_entropy,
) -> Losses:
    """The losses of a model on a batch, products in ``precision``, logits in float32 or wider."""
    inputs, targets = batch
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    options = {"with_extras": True} if isinstance(bare, Transformer) else {}
    plain = precision == torch.float32
    with nullcontext() if plain else torch.autocast(inputs.device.type, precision):
        result = model(inputs, **options)
    logits, extras = result if options else (result, Extras())
    if not plain:
        logits = logits.float()
    nats = cross_entropy(logits.flatten(0, 1), targets.flatten())
    total = nats
    for term in extras.losses.values():
        total = total + targets.numel() * term
    return Losses(total, nats, extras.losses, extras.statistics)
