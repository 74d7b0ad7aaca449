"""For speed alone: the rows of a batch side by side, on cores of their own.

torch shares every operation out among its threads, which wait for each other after each of some
hundred operations. Rows have nothing to do with each other until their gradients are added: a
thread that takes some of them through forward and backward waits for the others once.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from llmtutor.model.losses import Batch, Loss, Losses

Gradients = tuple[Tensor | None, ...]
"""One for each parameter, None for a parameter that has no part in the loss."""
MOST = 2
"""Parts at a time: as many as were measured. More have to wait for each other's Python."""


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Within it, torch shares the operations of this thread out among ``n``."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def equal_parts(rows: int, at_most: int = MOST) -> int:
    """Into how many equal parts to cut ``rows``: up to ``at_most``, and one for each core.

    >>> with threads(4):
    ...     [equal_parts(rows, 3) for rows in (12, 8, 7)]
    [3, 2, 1]
    """
    at_most = min(at_most, torch.get_num_threads())
    return max(parts for parts in range(1, at_most + 1) if rows % parts == 0)


@contextmanager
def side_by_side(loss: Loss, parts: int) -> Iterator[Loss]:
    """Within it, ``loss`` for batches of which ``parts`` equal parts are computed at a time.

    Each part has a thread of its own, this one among them, and the cores are divided between them
    until the end: given back after each loss they made the next one slower, we suspect because
    idle threads go on spinning. Forward and backward are done when it is returned; its ``backward``
    only hands out the gradients. They are added in the order of the parts, whichever is ready
    first, so that a run can be repeated to the bit. The model must not change in its forward pass.

    Python itself runs one thread at a time. The threads gain as long as torch computes, more so
    after ``torch.compile`` with ``cpp_wrapper``, which leaves Python once a pass.

    >>> def loss(model, batch, precision):
    ...     total = model(batch[0]).sum()
    ...     return Losses(total, total, {}, {})
    >>> with side_by_side(loss, 2) as two_at_a_time:
    ...     model = nn.Linear(1, 1, bias=False)
    ...     x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    ...     two_at_a_time(model, (x, x), torch.float32).total.backward()
    ...     model.weight.grad
    tensor([[10.]])
    """
    if parts == 1:
        yield loss
        return
    each = max(1, torch.get_num_threads() // parts)
    pool = ThreadPoolExecutor(parts - 1, "rows", torch.set_num_threads, (each,))
    with threads(each), pool:
        yield _SideBySide(loss, parts, pool)


class _SideBySide:
    """The loss within ``side_by_side``."""

    def __init__(self, loss: Loss, parts: int, pool: ThreadPoolExecutor) -> None:
        self.loss, self.parts, self.pool = loss, parts, pool
        self.used = False

    def __call__(
        self, model: nn.Module, batch: Batch, precision: torch.dtype = torch.float32
    ) -> Losses:
        inputs, targets = batch
        if len(inputs) % self.parts:
            raise ValueError(
                f"a batch of {len(inputs)} rows cannot be cut into {self.parts} equal parts; take "
                "side_by_side with equal_parts(rows)"
            )
        pairs = list(zip(inputs.chunk(self.parts), targets.chunk(self.parts), strict=True))
        parameters = [p for p in model.parameters() if p.requires_grad]

        def compute(part: Batch) -> tuple[Losses, Gradients]:
            losses = self.loss(model, part, precision)
            return losses, torch.autograd.grad(losses.total, parameters, allow_unused=True)

        if self.used:
            others = [self.pool.submit(compute, part) for part in pairs[1:]]
            done = [compute(pairs[0]), *(other.result() for other in others)]
        else:
            # What torch.compile makes at the first call is made once, for all threads.
            done = [compute(part) for part in pairs]
            self.used = True
        parts, gradients = zip(*done, strict=True)
        total = _Known.apply(sum(p.total.detach() for p in parts), _added(gradients), *parameters)
        assert isinstance(total, Tensor)
        nats = torch.stack([p.nats.detach() for p in parts]).sum()
        means = (
            {name: sum(values[name].detach() for values in some) / len(some) for name in some[0]}
            for some in ([p.auxiliary for p in parts], [p.statistics for p in parts])
        )
        return Losses(total, nats, *means)


def _added(parts: tuple[Gradients, ...]) -> list[Tensor | None]:
    """The sum over parts, for each parameter; not in place, since two may share one gradient."""
    sums: list[Tensor | None] = list(parts[0])
    for part in parts[1:]:
        pairs = zip(sums, part, strict=True)
        sums = [None if g is None or total is None else total + g for total, g in pairs]
    return sums


class _Known(torch.autograd.Function):
    """A number whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *_: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (g if g is None else g * scale for g in ctx.gradients)
        return None, None, *scaled
