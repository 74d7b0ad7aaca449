"""Chapter 19, ssm: three ways through ``h_t = a_t h_{t−1} + b_t``.

One token after another, as it is written. By doubling, since two steps in a row are again one such
step, ``(a, b)`` then ``(a', b')`` being ``(a' a, a' b + b')``. And in chunks, a bit of both.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llmtutor.checks import check_at_least

Steps = Float[Tensor, "batch seq *state"]
Start = Float[Tensor, "batch *state"]
Scan = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From a, b and the state before the first token to all states."""


def sequential_scan(a: Steps, b: Steps, start: Start | None = None) -> Steps:
    """``h_t = a_t h_{t−1} + b_t`` for each t, with ``start`` before the first (default 0).

    seq steps that wait for each other, and one multiplication and addition for each number.

    >>> a, b = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[8.0, 0.0, 2.0]])
    >>> sequential_scan(a, b)
    tensor([[8., 4., 4.]])

    Raises:
        ValueError: ``a`` and ``b`` of different shapes or without a token, a ``start`` that is not
            of the shape of one token.
    """
    return _Sequential.apply(a, _begun(a, b, start))


class _Sequential(torch.autograd.Function):
    """The loop, and its gradient: a scan as well, from the last token to the first.

    What ``h_t`` does to the loss, it does by itself and through ``h_{t+1}``:
    ``g_t = ∂L/∂h_t + a_{t+1} g_{t+1}``. Then ``∂L/∂b_t = g_t`` and ``∂L/∂a_t = g_t h_{t−1}``.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        h = b.clone()
        for t in range(1, b.shape[1]):
            h[:, t].addcmul_(a[:, t], h[:, t - 1])
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, h = ctx.saved_tensors
        g = grad.clone()
        for t in range(g.shape[1] - 2, -1, -1):
            g[:, t].addcmul_(a[:, t + 1], g[:, t + 1])
        grad_a = torch.zeros_like(a)  # the first a meets no state that is not in b already
        torch.mul(g[:, 1:], h[:, :-1], out=grad_a[:, 1:])
        return grad_a, g


def parallel_scan(
    a: Steps, b: Steps, start: Start | None = None, *, longest: int | None = None
) -> Steps:
    """The same by doubling: each round joins to every step the one that ends where it begins.

    After one round each step stands for two tokens, after two for four: log₂ seq rounds, in which
    nothing waits, of seq steps each (Hillis and Steele 1986). Each round multiplies ``a`` as well,
    so there is about 2 log₂ seq times the work.
    ``longest`` is a bound for seq where the program must not depend on it.

    Raises:
        ValueError: as ``sequential_scan``.
    """
    b = _begun(a, b, start)
    reach, seq = 1, b.shape[1]
    if seq == 1:
        return b
    while reach < (seq if longest is None else longest):
        b = b + a * _later(b, reach, 0.0)
        a = a * _later(a, reach, 1.0)
        reach *= 2
    return b


def _later(x: Tensor, by: int, first: float) -> Tensor:
    """``x`` moved ``by`` tokens to the right, with ``first`` where nothing was."""
    padding = (0, 0) * (x.ndim - 2) + (by, 0)
    return F.pad(x, padding, value=first)[:, : x.shape[1]]


def chunked_scan(a: Steps, b: Steps, start: Start | None = None, *, chunk: int = 16) -> Steps:
    """The same in pieces of ``chunk`` tokens: all pieces at once, then from piece to piece.

    Inside, each begins with no past: ``chunk`` steps. What the pieces hand on is a scan with one
    step a piece. Last, each token gets what came before its piece, times all its a since then.
    chunk + seq / chunk steps that wait, and about three times the work.

    Raises:
        ValueError: as ``sequential_scan``; a chunk below 1.
    """
    check_at_least(1, chunk=chunk)
    b = _begun(a, b, start)
    seq = b.shape[1]
    fill = -seq % chunk
    a, b = (F.pad(x, (0, 0) * (x.ndim - 2) + (0, fill)) for x in (a, b))
    a, b = (x.unflatten(1, (-1, chunk)) for x in (a, b))  # (batch, pieces, chunk, *state)
    inside, since = [b[:, :, 0]], [a[:, :, 0]]
    for i in range(1, chunk):
        inside.append(a[:, :, i] * inside[-1] + b[:, :, i])
        since.append(a[:, :, i] * since[-1])
    ends = sequential_scan(since[-1], inside[-1])
    before = _later(ends, 1, 0.0)
    h = torch.stack(inside, 2) + torch.stack(since, 2) * before.unsqueeze(2)
    return h.flatten(1, 2)[:, :seq]


def _begun(a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
    """``b`` with what ``start`` gives to the first state."""
    if a.shape != b.shape or b.ndim < 2 or b.shape[1] < 1:
        raise ValueError(
            "a and b must have one shape (batch, seq, …) with at least one token, "
            f"got a {tuple(a.shape)}, b {tuple(b.shape)}"
        )
    if start is None:
        return b
    if start.shape != b[:, 0].shape:
        raise ValueError(
            f"start must have the shape of one token, {tuple(b[:, 0].shape)}, "
            f"got {tuple(start.shape)}"
        )
    first = b[:, :1] + a[:, :1] * start.unsqueeze(1)
    return torch.cat((first, b[:, 1:]), dim=1)
