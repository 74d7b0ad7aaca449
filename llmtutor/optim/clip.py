"""Chapter 10, optimizers, step 5: a gradient that is too long is made shorter, as a whole."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from llmtutor.optim.base import check_at_least_0


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Float[Tensor, ""]:
    """Scale all gradients by one factor so that their common norm is at most ``max_norm``.

    The norm is that of all gradients laid end to end: directions stay as they are. Returns the
    norm *before* clipping, which is worth a plot (Pascanu et al. 2013). Without any gradient it
    is 0; a gradient that is not finite makes it inf or nan, and is left for the caller to find.

    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> w.grad = torch.tensor([30.0, 40.0])
    >>> clip_grad_norm([w], 5.0), w.grad
    (tensor(50.), tensor([3.0000, 4.0000]))

    Raises:
        ValueError: a negative ``max_norm``.
    """
    check_at_least_0(max_norm=max_norm)
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    norm = getattr(norm, "full_tensor", lambda: norm)()  # of all ranks, if gradients are sharded
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    # To ask a GPU for a number is to wait for it, so there one multiplies by 1 instead.
    if norm.device.type != "cpu" or factor != 1:
        torch._foreach_mul_(grads, factor)
    return norm
