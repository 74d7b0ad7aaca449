"""Chapter 10, optimizers, step 4: Muon, momentum made orthogonal, one matrix at a time.

A layer multiplies by its matrix, so what counts is how far a change of the matrix can move the
layer's output: its singular values. Muon replaces them all by about 1.
"""

import math
from collections import defaultdict

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from llmtutor.checks import check_name
from llmtutor.optim.base import Group, Params, Rule

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan et al. (2024): steep at 0, so that small singular values rise quickly, and after five
rounds anything from about 0.7 to 1.2; it never settles at 1, and need not."""
EPS = 1e-7

ADJUST = {
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}
"""Factors of the learning rate by shape. ``original`` is Jordan's (2024). An orthogonal matrix has
entries of mean square 1 / max(rows, columns); ``match_rms_adamw`` makes their root 0.2, which is
what AdamW's steps usually have, so that both can share a learning rate (Liu et al. 2025)."""


def newton_schulz(
    g: Float[Tensor, "*stack rows columns"], steps: int = 5, dtype: torch.dtype = torch.bfloat16
) -> Float[Tensor, "*stack rows columns"]:
    """The matrix with the singular vectors of ``g`` and all singular values near 1.

    ``X ← a X + (b A + c A²) X`` with ``A = X Xᵀ`` applies ``a s + b s³ + c s⁵`` to every singular
    value s at once, by matrix products alone. A stack of matrices is treated one by one. The
    result has ``dtype``.

    >>> newton_schulz(torch.diag(torch.tensor([2.0, 5.0])), steps=5).round().float()
    tensor([[1., 0.],
            [0., 1.]])

    Raises:
        ValueError: ``g`` with fewer than two axes.
    """
    if g.ndim < 2:
        raise ValueError(f"g must be a matrix or a stack of them, got shape {tuple(g.shape)}")
    a, b, c = COEFFICIENTS
    tall = g.shape[-2] > g.shape[-1]
    x = g.to(dtype).flatten(0, -3) if g.ndim > 3 else g.to(dtype)
    if tall:
        x = x.mT  # A is the smaller of the two products
    product = torch.addmm if x.ndim == 2 else torch.baddbmm
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)  # no singular value above 1
    for _ in range(steps):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(g.shape)


class Muon(Rule):
    """``B ← μ B + (1 − μ) g``, ``W ← (1 − lr · λ) W − lr · adjust · newton_schulz(B)``.

    With ``nesterov`` the matrix made orthogonal is ``(1 − μ) g + μ B``. For the matrices between
    the embedding and the output layer, which are better left to AdamW (``make_optimizer`` does
    both). Settings, state and results are those of ``torch.optim.Muon``; matrices of one shape,
    and their transposes, are made orthogonal in one stack, which is faster. Parameters with three
    axes are stacks of matrices.

    Raises:
        ValueError: a parameter that is not a matrix, or a setting out of range, by name.
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.1,
        adjust_lr_fn: str = "original",
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        more = {"weight_decay": weight_decay, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, defaults | more)

    def check(self: Rule, group: Group) -> None:
        """As of any rule; all parameters are matrices or stacks of them."""
        Rule.check(self, group)
        if not 1 <= group["ns_steps"] < 100:
            raise ValueError(f"ns_steps must be from 1 to 99, got {group['ns_steps']}")
        check_name("adjust_lr_fn", group["adjust_lr_fn"], ADJUST)
        for p in group["params"]:
            if p.ndim not in (2, 3):
                raise ValueError(
                    f"Muon is for matrices, got a parameter of shape {tuple(p.shape)}; "
                    'make_optimizer(model, "muon", …) gives the others to AdamW'
                )

    def update(self: Rule, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of a group, which may belong to an optimizer of several rules."""
        lr, momentum = group["lr"], group["momentum"]
        means = self.memory("momentum_buffer", params)
        torch._foreach_lerp_(means, grads, 1 - momentum)
        directions = torch._foreach_lerp(grads, means, momentum) if group["nesterov"] else means
        directions = [d.full_tensor() if isinstance(d, DTensor) else d for d in directions]
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        adjust = ADJUST[group["adjust_lr_fn"]]
        together = defaultdict(list)  # matrices of equal shapes, once wide
        for i, p in enumerate(params):
            together[_wide(p).shape, p.device].append(i)
        for places in together.values():
            wide = [_wide(directions[i]) for i in places]
            # One matrix alone goes the way that torch.optim.Muon goes, bit for bit.
            stack = torch.stack(wide) if len(wide) > 1 else wide[0]
            steps = newton_schulz(stack, group["ns_steps"])
            for i, step in zip(places, steps if len(wide) > 1 else [steps], strict=True):
                p, (rows, columns) = params[i], params[i].shape[-2:]
                step = step if rows <= columns else step.mT
                if isinstance(p, DTensor):  # every rank has made the whole step and takes its slice
                    step = distribute_tensor(step, p.device_mesh, p.placements, src_data_rank=None)
                p.add_(step, alpha=-lr * adjust(rows, columns))


def _wide(x: Tensor) -> Tensor:
    return x if x.shape[-2] <= x.shape[-1] else x.mT
