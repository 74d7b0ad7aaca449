"""Chapter 04, attention: does any output look at an input that comes after it?

A language model that sees the token it has to predict reports a wonderful loss and writes
nonsense. The loss cannot tell; two experiments can. *Perturbation*: change the token at one
position and see whether an output before it moves. *Jacobian*: differentiate each output by the
embedding of every input, and look for a derivative that should be zero.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.evaluate.perplexity import mode

Model = Callable[[Int[Tensor, "batch seq"]], Float[Tensor, "batch seq vocab"]]

BATCH = 2
"""Sequences tried at once; more than one, because a single draw can hide a dependence."""
ROUNDING = 16
"""Changes below this many units in the last place of the largest value are rounding."""


@dataclass(frozen=True)
class Leak:
    """An output that depends on a later input."""

    position: int
    """The earliest output that does, counted from 0."""
    source: int
    """The nearest later input that it depends on."""
    size: float
    """Largest change of a logit, or largest derivative, relative to the largest there is."""
    method: Literal["perturbation", "jacobian"]
    training: bool
    """True if seen in training mode (batch statistics, dropout), False in evaluation mode."""

    def __str__(self) -> str:
        """One line for people."""
        what = "changes with" if self.method == "perturbation" else "has a derivative by"
        return (
            f"the output at position {self.position} {what} the input at position {self.source}, "
            f"which comes later (relative size {self.size:.1e}, by {self.method}, in "
            f"{'training' if self.training else 'evaluation'} mode)"
        )


def assert_causal(model: Model, vocab_size: int, *, seq_len: int = 16, seed: int = 0) -> None:
    """Raise unless no output of ``model`` depends on a later input; see ``find_leak``.

    >>> assert_causal(nn.Embedding(10, 10), vocab_size=10)  # looks at the present token alone

    Raises:
        AssertionError: there is a leak; the message names the first leaking position.
        ValueError: as ``find_leak``.
    """
    leak = find_leak(model, vocab_size, seq_len=seq_len, seed=seed)
    if leak is not None:
        raise AssertionError(
            f"not causal: {leak}; look for a mask that is missing or off by one, a shift in the "
            "wrong direction, or a statistic over the sequence"
        )


def find_leak(model: Model, vocab_size: int, *, seq_len: int = 16, seed: int = 0) -> Leak | None:
    """The first leak of ``model``: ids (batch, seq) → logits (batch, seq, vocab), or None.

    A module is examined in evaluation *and* in training mode, with equal random numbers in each
    run (dropout stays the same, batch statistics show); modes and buffers are as before
    afterwards. Perturbation works for any callable. The Jacobian needs a module that is given the
    ids as they are and returns their embeddings; where there is none (a counted model, ids
    shifted before the look-up) perturbation alone speaks. Use float32 or float64: the
    threshold follows the precision of the logits.

    >>> print(find_leak(lambda ids: nn.functional.one_hot(ids.roll(-1, 1), 10).float(), 10))
    the output at position 0 changes with the input at position 1, which comes later \
(relative size 1.0e+00, by perturbation, in evaluation mode)

    Raises:
        ValueError: vocab_size or seq_len below 2, logits of another shape or not finite.
    """
    if vocab_size < 2 or seq_len < 2:
        raise ValueError(
            "need vocab_size >= 2 (a token to change to) and seq_len >= 2 (a future), "
            f"got {vocab_size} and {seq_len}"
        )
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (BATCH, seq_len), generator=generator)
    other = torch.randint(1, vocab_size, (BATCH, seq_len), generator=generator)
    changed = (ids + other) % vocab_size
    leaks: list[Leak] = []
    for training in (False, True) if isinstance(model, nn.Module) else (False,):
        with mode(model, training):
            run = _repeatable(model, seed)
            if found := _by_perturbation(run, ids, changed):
                leaks.append(Leak(*found, "perturbation", training))
            if isinstance(model, nn.Module) and (found := _by_jacobian(model, run, ids)):
                leaks.append(Leak(*found, "jacobian", training))
    return min(leaks, key=lambda leak: (leak.position, leak.source), default=None)


def _by_perturbation(
    run: Model, ids: Int[Tensor, "batch seq"], changed: Int[Tensor, "batch seq"]
) -> tuple[int, int, float] | None:
    """(position, source, size) of the first leak that a changed token shows."""
    found = []
    with torch.no_grad():
        before = run(ids)
        for source in range(1, ids.shape[1]):
            perturbed = ids.clone()
            perturbed[:, source] = changed[:, source]
            after = run(perturbed)
            largest = max(float(x.abs().amax()) for x in (before, after)) or 1.0
            moved = _by_position(after - before) / largest
            late = (moved[:source] > _threshold(before)).nonzero()
            if len(late):
                position = int(late[0])
                found.append((position, source, float(moved[position])))
    return min(found, default=None)


def _by_jacobian(
    model: nn.Module, run: Model, ids: Int[Tensor, "batch seq"]
) -> tuple[int, int, float] | None:
    """(position, source, size) of the first leak among the derivatives by the embeddings."""
    with torch.enable_grad(), _embeddings(model, ids) as embeddings:
        logits = run(ids)
        # Logits often sum to a constant; a random direction does not cancel.
        direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        along = (logits * direction.to(logits)).sum((0, 2))
        if not embeddings or not along.requires_grad:
            return None
        for position in range(ids.shape[1] - 1):
            gradients = torch.autograd.grad(
                along[position], embeddings, retain_graph=True, allow_unused=True
            )
            sizes = [_by_position(g) for g in gradients if g is not None]
            if not sizes:
                continue
            size = torch.stack(sizes).amax(0)
            late = (size[position + 1 :] > _threshold(logits) * size.amax()).nonzero()
            if len(late):
                source = position + 1 + int(late[0])
                return position, source, float(size[source] / size.amax())
    return None


@contextmanager
def _embeddings(model: nn.Module, ids: Tensor) -> Iterator[list[Tensor]]:
    """Collect, while ``model`` runs, what its modules make directly of ``ids``.

    A forward hook on every module looks for one that was given exactly these ids and returned
    vectors (batch, seq, …). Modules around the embedding qualify too (the model itself does):
    their outputs come later in the graph and can only repeat what is true.
    """
    found: list[Tensor] = []

    def look(module: nn.Module, args: tuple, output: object) -> Tensor | None:
        given = args[0] if args else None
        if not (isinstance(given, Tensor) and isinstance(output, Tensor)):
            return None
        if given.is_floating_point() or not output.is_floating_point():
            return None
        if output.shape[:2] != ids.shape or not torch.equal(given.to(ids), ids):
            return None
        if output.requires_grad:
            found.append(output)
            return None
        found.append(output.detach().requires_grad_())
        return found[-1].clone()  # the model may write into what it is given

    handles = [module.register_forward_hook(look) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _repeatable(model: Model, seed: int) -> Model:
    """``model`` with the same random numbers in every run, and buffers that no run changes."""

    def run(ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if isinstance(model, nn.Module):
                device = next((p.device for p in model.parameters()), ids.device)
                buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
                logits = torch.func.functional_call(model, buffers, (ids.to(device),))
            else:
                logits = model(ids)
        if logits.ndim != 3 or logits.shape[:2] != ids.shape or not logits.is_floating_point():
            raise ValueError(
                f"the model must return logits (batch, seq, vocab) for ids {tuple(ids.shape)}, "
                f"got {logits.dtype} of shape {tuple(logits.shape)}"
            )
        if not logits.isfinite().all():
            raise ValueError("some logits are nan or infinite; see to them first")
        return logits

    return run


def _by_position(x: Tensor) -> Float[Tensor, " seq"]:
    """Largest absolute value at each position of (batch, seq, …)."""
    return x.detach().abs().flatten(2).amax((0, 2))


def _threshold(logits: Tensor) -> float:
    return ROUNDING * torch.finfo(logits.dtype).eps
