"""Chapter 10, optimizers, step 3: Adam with decoupled weight decay."""

import torch
from torch import Tensor

from llmtutor.optim.base import Group, Params, Rule
from llmtutor.optim.sgd import has_kernel


def adamw_(
    p: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    t: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Step number ``t`` (the first is 1) in place, written out.

    >>> p, m, v = torch.tensor([1.0]), torch.zeros(1), torch.zeros(1)
    >>> settings = dict(lr=0.1, beta1=0.9, beta2=0.95, eps=0.0, weight_decay=0.5)
    >>> adamw_(p, torch.tensor([1e-6]), m, v, 1, **settings)
    >>> p  # 1 − 0.1 · 0.5, then a step of lr · sign(g), however small the gradient
    tensor([0.8500])
    """
    p.mul_(1 - lr * weight_decay)
    m.copy_(beta1 * m + (1 - beta1) * grad)
    v.copy_(beta2 * v + (1 - beta2) * grad.square())
    m_hat = m / (1 - beta1**t)  # m and v began at 0: what is missing of the weights' sum 1
    v_hat = v / (1 - beta2**t)
    p.sub_(lr * m_hat / (v_hat.sqrt() + eps))


class AdamW(Rule):
    """Steps of about the same size for every weight, and decay outside of them.

    ``m`` and ``v`` are running means of the gradient and of its square; the step is
    ``lr · m̂ / (√v̂ + eps)`` with the hats of ``adamw_`` (Kingma and Ba 2015). The decay shrinks the
    weight itself by ``lr · weight_decay`` and never meets √v̂ (Loshchilov and Hutter 2019). State
    and groups are named as in ``torch.optim.AdamW``. On CPU and CUDA the same arithmetic runs in
    one kernel for all parameters; the tests hold it equal to ``adamw_``.

    Raises:
        ValueError: a setting out of range, by name.
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        # Loading a state, torch puts the steps of a group that says so where the kernel wants them.
        super().__init__(params, defaults | {"fused": True})

    def update(self: Rule, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of a group, which may belong to an optimizer of several rules."""
        for p in params:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
        steps = [self.state[p]["step"] for p in params]
        means, squares = self.memory("exp_avg", params), self.memory("exp_avg_sq", params)
        # A number in place of the tensor would be made into one for each of the parameters.
        torch._foreach_add_(steps, torch.ones((), device=steps[0].device))
        settings = {name: group[name] for name in ("lr", "eps", "weight_decay")}
        settings["beta1"], settings["beta2"] = group["betas"]
        if has_kernel(params):
            settings |= {"amsgrad": False, "maximize": False}
            torch._fused_adamw_(params, grads, means, squares, [], steps, **settings)
            return
        for p, g, m, v, t in zip(params, grads, means, squares, steps, strict=True):
            adamw_(p, g, m, v, int(t), **settings)
