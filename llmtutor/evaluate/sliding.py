"""Chapter 03, language modelling: a whole text measured, each token with a long enough past.

Cut into windows that do not overlap, the first token of each is predicted from nothing, and a model
with a short context pays for it. Windows that overlap score only their ends.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.evaluate.perplexity import LossReport, mode
from llmtutor.layers.basic import cross_entropy


def sliding_loss(
    model: nn.Module,
    ids: Int64[Tensor, " seq"],
    context: int,
    *,
    stride: int | None = None,
    batch_size: int = 32,
) -> LossReport:
    """Loss on every token of ``ids`` but the first, each scored once.

    A window is ``context`` inputs long and begins ``stride`` tokens (default: half of the context)
    after the one before. Only its last ``stride`` targets count, of the first window all: so each
    token is predicted from at least ``context − stride`` tokens, or from all there are.

    Raises:
        ValueError: fewer than two ids; sizes below 1, or a stride beyond the context.
    """
    stride = max(1, context // 2) if stride is None else stride
    check_at_least(1, context=context, stride=stride, batch_size=batch_size)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"expected a row of at least two ids, got shape {tuple(ids.shape)}")
    if stride > context:
        raise ValueError(f"a stride of {stride} beyond the context of {context} leaves tokens out")
    total, n_tokens = 0.0, 0
    with torch.no_grad(), mode(model, training=False):
        for cut, first in windows(ids, context, stride, batch_size):
            logits = model(cut[:, :-1])[:, first:]
            losses = cross_entropy(logits, cut[:, 1 + first :], reduction="none")
            total += losses.double().sum().item()
            n_tokens += losses.numel()
    return LossReport(total / n_tokens, n_tokens)


def windows(
    ids: Int64[Tensor, " seq"], context: int, stride: int, batch_size: int = 1
) -> Iterator[tuple[Int64[Tensor, "batch window"], int]]:
    """Rows of inputs and one target more, and the first target that counts, from 0.

    >>> [(cut[0].tolist(), first) for cut, first in windows(torch.arange(6), 3, 2)]
    [([0, 1, 2, 3], 0), ([2, 3, 4, 5], 1)]
    """
    last = len(ids) - 1
    end = min(context, last)  # of the first window: the place of its last target
    yield ids[None, : end + 1], 0
    ends = torch.tensor(range(end + stride, last + 1, stride), dtype=torch.int64)
    for some in ends.split(batch_size) if len(ends) else ():
        yield ids[some[:, None] + torch.arange(-context, 1)], context - stride
        end = int(some[-1])
    if rest := last - end:
        yield ids[None, -context - 1 :], context - rest
