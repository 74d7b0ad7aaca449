"""Chapter 03, language modelling: one honest number for how well a model predicts.

Three units for the same thing. *Nats per token* is what training lowers. *Perplexity* is its
exponential: the number of equally likely tokens that would be as surprising. *Bits per byte*
divides by the bytes of text instead of the tokens, so that models with different tokenizers can
be compared.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import cross_entropy


@dataclass(frozen=True)
class LossReport:
    """Loss over a data set."""

    nats_per_token: float
    """Mean of −log p(token) over all predicted tokens."""
    n_tokens: int
    """Number of predicted tokens; the context tokens that nobody predicted do not count."""

    @property
    def total_nats(self) -> float:
        """Sum of −log p(token): the length in nats of the text under the model's code."""
        return self.nats_per_token * self.n_tokens

    def bits_per_byte(self, n_bytes: int) -> float:
        """Bits per byte; ``n_bytes`` are the UTF-8 bytes of the *predicted* tokens."""
        return bits_per_byte(self.total_nats, n_bytes)


def perplexity(nats_per_token: float) -> float:
    """``exp(nats_per_token)``: 1 for a model that is always sure and right, inf on overflow.

    >>> round(perplexity(math.log(50)), 9)  # uniform over 50 tokens
    50.0
    """
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


def bits_per_byte(total_nats: float, n_bytes: int) -> float:
    """``total_nats / (ln 2 · n_bytes)``.

    The total counts every token of the text once, so the tokenizer cancels out: 1,000 tokens at
    3 nats and 3,000 tokens at 1 nat describe the same text equally well.

    >>> round(bits_per_byte(8 * math.log(2), 4), 9)  # 8 bits for 4 bytes
    2.0

    Raises:
        ValueError: ``n_bytes`` below 1.
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes must be at least 1, got {n_bytes}")
    return total_nats / (math.log(2) * n_bytes)


def evaluate_loss(
    model: Callable[[Int[Tensor, "batch seq"]], Float[Tensor, "batch seq vocab"]],
    batches: Iterable[tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]],
) -> LossReport:
    """Mean loss of ``model`` over all targets in ``batches`` of (inputs, targets).

    Losses are summed in float64 and divided once by the number of targets, so that a token weighs
    the same in a short last batch as anywhere else (a mean of batch means does not do that).
    Gradients are off; a module is in evaluation mode during the call and gets its mode back.

    >>> two_batches = [(torch.zeros(1, n).long(), torch.zeros(1, n).long()) for n in (5, 3)]
    >>> evaluate_loss(lambda ids: torch.zeros(*ids.shape, 2), two_batches).n_tokens
    8

    Raises:
        ValueError: no target in ``batches``; shapes or ids that do not fit (``cross_entropy``).
    """
    total, n_tokens = 0.0, 0
    with torch.no_grad(), mode(model, training=False):
        for inputs, targets in batches:
            losses = cross_entropy(model(inputs), targets, reduction="none")
            total += losses.double().sum().item()
            n_tokens += targets.numel()
    if n_tokens == 0:
        raise ValueError("nothing to evaluate: batches hold no targets (an iterator used up?)")
    return LossReport(total / n_tokens, n_tokens)


@contextmanager
def mode(model: Callable[..., Tensor], training: bool) -> Iterator[None]:
    """Training or evaluation mode for a while; every submodule gets its own mode back."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = training
        yield
    finally:
        for module, before in zip(modules, modes, strict=True):
            module.training = before
