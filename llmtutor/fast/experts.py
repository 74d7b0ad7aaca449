"""For programs that are traced once: experts without shapes that depend on the data.

How many tokens an expert gets is known when the router has spoken, so ``grouped`` cannot be part of
one graph for all inputs. Here each expert works on every token, and a weight of 0 takes away what
nobody asked for: the same sums, at the price of all experts for each token.
"""

from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.fast.lengths import any_length
from llmtutor.layers.moe import MoE
from llmtutor.layers.moe.dispatch import Experts

M = TypeVar("M", bound=nn.Module)


def dense_experts(
    experts: Experts,
    x: Float[Tensor, "tokens d_model"],
    chosen: Int[Tensor, "tokens top_k"],
    weights: Float[Tensor, "tokens top_k"],
) -> Float[Tensor, "tokens d_model"]:
    """``grouped``: the sum of the chosen experts' outputs, each times its weight."""
    shares = weights.new_zeros(x.shape[0], len(experts) + 1).scatter(1, chosen, weights)
    outputs = torch.stack([expert(x) for expert in experts], dim=-1)
    return (outputs * shares[:, None, :-1]).sum(-1).to(outputs.dtype)


def traceable(model: M) -> M:
    """``model`` itself, its layers in forms that one graph holds for all inputs; weights stay.

    For ``torch.export`` and ``torch.compile(…, fullgraph=True)``.
    """
    for module in model.modules():
        if isinstance(module, MoE):
            module.dispatch = dense_experts
    return any_length(model)
