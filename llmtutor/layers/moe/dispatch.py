"""Chapter 18, moe: tokens go to their experts, and what comes back is put where it belongs.

Each expert does one product for all of its tokens, so they are sorted by expert first. However
unevenly they fall, none is dropped and nothing is padded (Gale et al. 2022, MegaBlocks).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Experts = Sequence[nn.Module] | nn.ModuleList
Dispatch = Callable[[Experts, Tensor, Tensor, Tensor], Tensor]
"""From experts, tokens, choices and weights to outputs, as ``grouped``."""


def grouped(
    experts: Experts,
    x: Float[Tensor, "tokens d_model"],
    chosen: Int[Tensor, "tokens top_k"],
    weights: Float[Tensor, "tokens top_k"],
) -> Float[Tensor, "tokens d_model"]:
    """For each token the sum of its chosen experts' outputs, each times its weight.

    A choice of ``len(experts)`` is that of nobody, and counts as 0.

    >>> double, square = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> double.weight.data, square.weight.data = torch.tensor([[2.0]]), torch.tensor([[10.0]])
    >>> chosen, weights = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    >>> grouped([double, square], torch.tensor([[1.0], [2.0]]), chosen, weights).flatten().tolist()
    [6.0, 20.0]
    """
    top_k = chosen.shape[1]
    order = chosen.flatten().argsort(stable=True)
    sizes = chosen.flatten().bincount(minlength=len(experts) + 1).tolist()
    *parts, dropped = x[order // top_k].split(sizes)
    # Where gradients are wanted an expert without tokens takes part: they are 0 then, not missing.
    always = torch.is_grad_enabled()
    done = [f(part) for f, part in zip(experts, parts, strict=True) if len(part) or always]
    done.append(torch.zeros_like(dropped))
    back = torch.cat(done)[order.argsort()].unflatten(0, chosen.shape)
    return (weights.unsqueeze(-1) * back).sum(1).to(back.dtype)
