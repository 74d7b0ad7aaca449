"""Chapter 10, optimizers, step 2: stochastic gradient descent, with momentum if asked."""

from typing import Any

import torch
from torch import Tensor

from llmtutor.optim.base import Params, Rule, check_at_least_0, check_fraction


def sgd_(
    p: Tensor,
    grad: Tensor,
    velocity: Tensor | None,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """One step in place, written out.

    >>> p, velocity = torch.tensor([1.0]), torch.tensor([2.0])
    >>> settings = dict(momentum=0.5, weight_decay=0.0, nesterov=False)
    >>> sgd_(p, torch.tensor([4.0]), velocity, lr=0.1, **settings)
    >>> velocity, p  # 0.5 · 2 + 4 and 1 − 0.1 · 5
    (tensor([5.]), tensor([0.5000]))
    """
    grad = grad + weight_decay * p
    if velocity is not None:
        velocity.copy_(momentum * velocity + grad)
        grad = grad + momentum * velocity if nesterov else velocity
    p.sub_(lr * grad)


class SGD(Rule):
    """``v ← μ v + (g + λ w)``, ``w ← w − lr · v``; with μ = 0 this is plain gradient descent.

    ``nesterov`` looks one step ahead: ``w ← w − lr · (g + λ w + μ v)``. The decay λ enters through
    the gradient, as in ``torch.optim.SGD``. On CPU and CUDA the same arithmetic runs in one kernel
    for all parameters; the tests hold it equal to ``sgd_``.

    Raises:
        ValueError: a setting out of range, by name; Nesterov's step without momentum.
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        fused: bool = True,
    ) -> None:
        check_at_least_0(lr=lr, weight_decay=weight_decay)
        check_fraction(momentum=momentum)
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum above 0, got momentum = 0")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of a group."""
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        nesterov = group["nesterov"]
        velocities = self.memory("momentum_buffer", params) if momentum else []
        params, grads, velocities = map(slices, (params, grads, velocities))
        if group["fused"] and has_kernel(params):
            torch._fused_sgd_(
                params,
                grads,
                velocities,
                lr=lr,
                momentum=momentum,
                weight_decay=decay,
                nesterov=nesterov,
                dampening=0.0,
                maximize=False,
                is_first_step=False,
            )
            return
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            v = velocities[i] if velocities else None
            sgd_(p, g, v, lr=lr, momentum=momentum, weight_decay=decay, nesterov=nesterov)


def slices(tensors: list[Tensor]) -> list[Tensor]:
    """What this process holds of each tensor: all of it, unless FSDP2 has sharded it."""
    return [getattr(t, "to_local", lambda t=t: t)() for t in tensors]


def has_kernel(params: list[Tensor]) -> bool:
    """Whether torch has fused kernels for these parameters."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
