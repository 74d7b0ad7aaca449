"""Chapter 10, optimizers, step 2: stochastic gradient descent, with momentum if asked."""

import torch
from torch import Tensor

from llmtutor.optim.base import Group, Params, Rule


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
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, defaults | {"weight_decay": weight_decay})

    def check(self, group: Group) -> None:
        """As of any rule; Nesterov's step needs a momentum."""
        super().check(group)
        if group["nesterov"] and not group["momentum"]:
            raise ValueError("nesterov needs a momentum above 0, got momentum = 0")

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of a group."""
        settings = {n: group[n] for n in ("lr", "momentum", "weight_decay", "nesterov")}
        velocities = self.memory("momentum_buffer", params) if group["momentum"] else []
        params, grads, velocities = map(slices, (params, grads, velocities))
        if has_kernel(params):
            settings |= {"dampening": 0.0, "maximize": False, "is_first_step": False}
            torch._fused_sgd_(params, grads, velocities, **settings)
            return
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            sgd_(p, g, velocities[i] if velocities else None, **settings)


def slices(tensors: list[Tensor]) -> list[Tensor]:
    """What this process holds of each tensor: all of it, unless FSDP2 has sharded it."""
    return [getattr(t, "to_local", lambda t=t: t)() for t in tensors]


def has_kernel(params: list[Tensor]) -> bool:
    """Whether torch has fused kernels for these parameters."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
