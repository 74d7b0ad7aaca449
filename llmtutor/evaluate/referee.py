"""Chapter 24, forensics: questions that a referee can put to a model and to its batches.

Each takes seconds, needs no second model to compare with, and has an answer that is known
beforehand: that is what makes it a test. A loss alone has none.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.evaluate.causality import Model, find_leak
from llmtutor.evaluate.perplexity import evaluate_loss, mode
from llmtutor.layers.basic import cross_entropy
from llmtutor.optim import AdamW

Batch = tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]
LR = 3e-3
"""Of the short trainings here."""
CLOSE = 0.5
"""Nats by which the first loss may lie away from ln V: logits of deviation 1 cost half a nat."""
LEARNED = 0.2
"""The part of the first loss that is left, at most, when one batch has been learned by heart."""
SYMBOLS = 16
"""Of the vocabulary that noise is made of, at most: fewer are learned sooner."""
BELOW = 0.02
"""Nats below the entropy of noise that are put down to luck."""


@dataclass(frozen=True)
class Answer:
    """What was asked, whether the answer is as it should be, and what was found."""

    question: str
    passed: bool
    found: str


def loss_by_position(model: Model, batches: Iterable[Batch]) -> Float[Tensor, " seq"]:
    """Mean loss at each position of windows of one length, in nats.

    With more context a prediction gets easier: late positions of an honest model are among its
    best. At the last one nothing lies ahead, and a model that looks ahead is blind there. That
    loss is clean: whole windows go in, as in training, and nothing of the answer.

    Raises:
        ValueError: no batch.
    """
    total, n = torch.zeros(()), 0
    with torch.no_grad(), mode(model, training=False):
        for inputs, targets in batches:
            losses = cross_entropy(model(inputs), targets, reduction="none")
            total = total + losses.double().sum(0)
            n += len(inputs)
    if n == 0:
        raise ValueError("nothing to evaluate: there is no batch")
    return total / n


def loss_in_use(model: Model, batches: Iterable[Batch]) -> float:
    """Mean loss in nats where no prediction can see what follows it, as when text is generated.

    Each prefix of a window goes in alone, and its last prediction counts. For a causal model this
    is its usual loss, at ``seq`` times the price. A difference says *that* something is wrong, not
    how much was read off the future: short windows, which a leaky model has never been trained on,
    do harm of their own. The last position of ``loss_by_position`` has only the first part.

    Raises:
        ValueError: no batch.
    """
    total, n = 0.0, 0
    with torch.no_grad(), mode(model, training=False):
        for inputs, targets in batches:
            for length in range(1, inputs.shape[1] + 1):
                last = model(inputs[:, :length])[:, -1]
                losses = cross_entropy(last, targets[:, length - 1], reduction="none")
                total += losses.double().sum().item()
                n += len(inputs)
    if n == 0:
        raise ValueError("nothing to evaluate: there is no batch")
    return total / n


def train_copy(model: nn.Module, batches: Iterable[Batch], lr: float = LR) -> nn.Module:
    """A copy of the model after one AdamW step for each batch; the model stays as it is."""
    trained = copy.deepcopy(model)
    optimizer = AdamW(trained.parameters(), lr, weight_decay=0.0)
    with mode(trained, training=True):
        for inputs, targets in batches:
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(trained(inputs), targets).backward()
            optimizer.step()
    return trained


def noise_batches(
    vocab_size: int, seq_len: int, *, steps: int, batch_size: int = 32, seed: int = 0
) -> Iterator[Batch]:
    """Windows of tokens that are all equally likely, whatever came before: nobody can do better
    than ln ``vocab_size`` nats on them."""
    check_at_least(1, vocab_size=vocab_size, seq_len=seq_len, steps=steps, batch_size=batch_size)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(vocab_size, (batch_size, seq_len + 1), generator=generator)
        yield ids[:, :-1], ids[:, 1:]


def is_causal(model: Model, vocab_size: int, seq_len: int) -> Answer:
    """No output may depend on a later input."""
    leak = find_leak(model, vocab_size, seq_len=seq_len)
    return Answer("Does any output depend on a later input?", leak is None, str(leak or "no"))


def starts_at_log_vocab(model: Model, vocab_size: int, seq_len: int) -> Answer:
    """A new model knows nothing: its first loss is ln V."""
    batches = noise_batches(vocab_size, seq_len, steps=4)
    loss = evaluate_loss(model, batches).nats_per_token
    found = f"{loss:.2f}, and ln {vocab_size} is {math.log(vocab_size):.2f}"
    close = abs(loss - math.log(vocab_size)) <= CLOSE
    return Answer("Is the first loss ln V?", close, found)


def learns_one_batch(
    model: nn.Module, vocab_size: int, seq_len: int, *, steps: int = 150
) -> Answer:
    """A model all of whose parts are trained learns four short rows by heart."""
    (batch,) = noise_batches(vocab_size, seq_len, steps=1, batch_size=4, seed=1)
    before = evaluate_loss(model, [batch]).nats_per_token
    trained = train_copy(model, [batch] * steps)
    after = evaluate_loss(trained, [batch]).nats_per_token
    found = f"{before:.2f} fell to {after:.2f} in {steps} steps"
    return Answer("Can it learn one batch by heart?", after <= LEARNED * before, found)


def respects_noise(model: nn.Module, vocab_size: int, seq_len: int, *, steps: int = 300) -> Answer:
    """Trained on noise, a model stays at its entropy: the test of shuffled labels, for text.

    The labels of a language model are the text itself, so the text is of tokens that are drawn
    independently, ``SYMBOLS`` of them at most and all equally likely.
    """
    symbols = min(vocab_size, SYMBOLS)
    trained = train_copy(model, noise_batches(symbols, seq_len, steps=steps))
    fresh = noise_batches(symbols, seq_len, steps=8, batch_size=64, seed=1)
    loss = evaluate_loss(trained, fresh).nats_per_token
    floor = math.log(symbols)
    found = f"{loss:.2f} after {steps} steps, and the entropy is {floor:.2f}"
    return Answer("Does it leave noise alone?", loss > floor - BELOW, found)


def targets_are_next(batch: Batch) -> Answer:
    """The target of a position is the input of the next one, and not its own."""
    inputs, targets = batch
    next_ones = bool((targets[:, :-1] == inputs[:, 1:]).all())
    same = bool((targets == inputs).all())
    found = "the inputs themselves" if same else "the next inputs" if next_ones else "others"
    return Answer("Are the targets the next inputs?", next_ones and not same, found)


def held_out_is_unseen(train: np.ndarray, valid: np.ndarray) -> Answer:
    """Few held-out windows (windows, seq) have a half that stands in a training window as well."""
    if train.ndim != 2 or valid.ndim != 2 or train.shape[1] != valid.shape[1]:
        raise ValueError(
            "expected windows of one length, (windows, seq), got shapes "
            f"{train.shape} and {valid.shape}"
        )
    width = max(1, train.shape[1] // 2)
    seen = {piece for row in train for piece in _pieces(row, width)}
    shared = sum(any(piece in seen for piece in _pieces(row, width)) for row in valid)
    share = shared / len(valid)
    found = f"{share:.0%} share {width} tokens in a row with a training window"
    return Answer("Is what is held out unseen?", share < 0.5, found)


def _pieces(row: np.ndarray, width: int) -> Iterator[bytes]:
    return (row[i : i + width].tobytes() for i in range(len(row) - width + 1))


CHECKS: tuple[Callable[[nn.Module, int, int], Answer], ...] = (
    is_causal,
    starts_at_log_vocab,
    learns_one_batch,
    respects_noise,
)
"""What can be asked of an untrained model, from the cheapest on."""


def examine(model: nn.Module, vocab_size: int, *, seq_len: int) -> list[Answer]:
    """All of CHECKS, put to a model as it is built; it is not changed.

    Raises:
        ValueError: as ``find_leak``.
    """
    return [check(model, vocab_size, seq_len) for check in CHECKS]
