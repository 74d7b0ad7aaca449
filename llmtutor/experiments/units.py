"""Chapter 08, feed-forward: the texts that a hidden unit answers to, and what changes without it.

A hidden unit is one of the numbers that go into the last matrix of a feed-forward part; texts and
the tokens that follow are (texts, seq). The units to look at are found by a rule and on texts of
their own, so that the test on others is one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.experiments.curve import spread_windows
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer

Change = Callable[[int, Tensor], Tensor]
"""From a block's number and its hidden units (texts, seq, d_ff) to those that go on."""
AT_ONCE = 16
"""Texts that go through the model together."""
SHARE = 0.01
"""Of all tokens, those where a unit is called strong in ``falls``."""


@dataclass(frozen=True)
class Reading:
    """Tokens up to one at which a unit is strong, and the token that follows."""

    words: Sequence[str]
    values: Sequence[float]
    """Of the unit, at each of the words."""
    following: str


@dataclass(frozen=True)
class Fall:
    """How a unit's removal changes the losses of tokens, in nats; above 0 it was of use."""

    everywhere: Float[Tensor, "texts"]
    """The mean of each text."""
    where_strong: float
    """The mean over the tokens where the unit is farthest from 0, a part SHARE of all."""
    elsewhere: float
    share: float
    """Of the sizes of all changes, what falls on the tokens where it is strong."""


def texts_of(
    ids: np.ndarray, n: int, seq_len: int
) -> tuple[Int[Tensor, "texts seq"], Int[Tensor, "texts seq"]]:
    """``n`` texts at even distances, and for each token the one that follows."""
    batches = list(spread_windows(ids, n, seq_len))
    inputs, targets = (torch.cat(some) for some in zip(*batches, strict=True))
    return inputs, targets


@contextmanager
def changed(model: Transformer, change: Change) -> Iterator[None]:
    """Meanwhile every block goes on with what ``change`` makes of its hidden units."""
    hooks = []
    for i, block in enumerate(model.blocks):

        def before_down(module: nn.Module, inputs: tuple[Tensor], i: int = i) -> tuple[Tensor]:
            return (change(i, inputs[0]),)

        hooks.append(block.get_submodule("ffn.down").register_forward_pre_hook(before_down))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def token_losses(
    model: Transformer, texts: Tensor, following: Tensor
) -> Float[Tensor, "texts seq"]:
    """Nats of each token that follows."""
    logits: Tensor = model(texts)
    return F.cross_entropy(logits.transpose(1, 2), following, reduction="none")


def effects(
    model: Transformer, texts: Tensor, following: Tensor
) -> tuple[Float[Tensor, "blocks units"], list[Float[Tensor, "texts seq units"]]]:
    """About how much the loss rises without each unit, in nats a token, and all units' values.

    A unit of value h that is set to 0 changes by −h, and the loss by −h ∂L/∂h to first order. One
    backward pass gives it for all units.
    """
    values: list[list[Tensor]] = [[] for _ in model.blocks]
    found: list[Tensor | float] = [0.0 for _ in model.blocks]

    def keep(i: int, hidden: Tensor) -> Tensor:
        hidden.retain_grad()
        values[i].append(hidden)
        return hidden

    with changed(model, keep), torch.enable_grad():
        for some, then in zip(texts.split(AT_ONCE), following.split(AT_ONCE), strict=True):
            token_losses(model, some, then).sum().backward()
            for i, of_block in enumerate(values):
                hidden = of_block[-1]
                assert hidden.grad is not None
                found[i] = found[i] - (hidden.detach() * hidden.grad).sum((0, 1))
                of_block[-1] = hidden.detach()
    model.zero_grad(set_to_none=True)
    effect = torch.stack([torch.as_tensor(one) for one in found]) / texts.numel()
    return effect, [torch.cat(of_block) for of_block in values]


def strongest(values: Float[Tensor, "texts seq"], k: int) -> list[tuple[int, int]]:
    """The k texts in which a unit is strongest, as (text, position), the strongest first.

    Strong is a value far from 0 on either side; each text counts once, at its strongest position.

    >>> strongest(torch.tensor([[0.5, -3.0], [1.0, 0.0]]), 1)
    [(0, 1)]
    """
    best, positions = values.abs().max(dim=1)
    texts = best.argsort(descending=True)[:k].tolist()
    return [(text, int(positions[text])) for text in texts]


def readings(
    values: Tensor, texts: Tensor, following: Tensor, tokenizer: Tokenizer, k: int, before: int = 9
) -> list[Reading]:
    """The k texts in which a unit is strongest, with some tokens before."""
    found = []
    for row, last in strongest(values, k):
        shown = slice(max(0, last - before), last + 1)
        words = [tokenizer.decode([t]) for t in texts[row, shown].tolist()]
        then = tokenizer.decode([int(following[row, last])])
        found.append(Reading(words, values[row, shown].tolist(), then))
    return found


@torch.no_grad()
def losses_with(
    model: Transformer, texts: Tensor, following: Tensor, change: Change
) -> Float[Tensor, "texts seq"]:
    """Nats of each token that follows, with the hidden units changed."""
    pairs = zip(texts.split(AT_ONCE), following.split(AT_ONCE), strict=True)
    with changed(model, change):
        return torch.cat([token_losses(model, *pair) for pair in pairs])


def losses_and_values(
    model: Transformer, texts: Tensor, following: Tensor
) -> tuple[Float[Tensor, "texts seq"], list[Float[Tensor, "texts seq units"]]]:
    """Nats of each token that follows with nothing changed, and the units' values by block."""
    heard: list[list[Tensor]] = [[] for _ in model.blocks]

    def listen(block: int, hidden: Tensor) -> Tensor:
        heard[block].append(hidden)
        return hidden

    nats = losses_with(model, texts, following, listen)
    return nats, [torch.cat(of_block) for of_block in heard]


def falls(values: Float[Tensor, "texts seq"], change: Float[Tensor, "texts seq"]) -> Fall:
    """Where the changes of a unit's removal fall, by the unit's own values there."""
    order = values.abs().flatten().argsort(descending=True)
    n = round(SHARE * len(order))
    strong, rest = change.flatten()[order].split([n, len(order) - n])
    share = float(strong.abs().sum() / change.abs().sum())
    return Fall(change.mean(1), float(strong.mean()), float(rest.mean()), share)
