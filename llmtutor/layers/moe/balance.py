"""Chapter 18, moe: how evenly experts are used, and losses that make it more even.

Left alone, a router sends most tokens to a few experts. A
*load* of 1 means as many tokens as on average.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def loads(
    experts: Int[Tensor, "*texts tokens top_k"], n_experts: int
) -> Float[Tensor, "*texts n_experts"]:
    """Tokens of each expert, divided by the mean over the experts.

    >>> loads(torch.tensor([[0], [0], [0], [1]]), 2)
    tensor([1.5000, 0.5000])
    """
    choices = experts.flatten(-2)
    counts = F.one_hot(choices, n_experts).sum(-2).to(torch.get_default_dtype())
    return n_experts * counts / choices.shape[-1]


def balance_loss(
    probabilities: Float[Tensor, "*texts tokens n_experts"],
    experts: Int[Tensor, "*texts tokens top_k"],
) -> Float[Tensor, ""]:
    """``E Σ f_i P_i``: f the share of the choices that fall on expert i, P its mean probability.

    Fedus et al. 2021, equations 4 to 6; 1 where both are even. The shares have no gradient: the
    loss lowers the probability of experts that have many tokens. Transformers' loss for Mixtral
    takes shares of the tokens, not of the choices, so for one layer it is ``top_k`` times this one;
    and it takes all layers together, so layers that each prefer another expert count as even. Where
    there are several texts, each is balanced by itself, and the mean is taken (DeepSeek-V3,
    equations 17 to 20).

    >>> balance_loss(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[0], [1]]))
    tensor(1.)
    """
    mean_probability = probabilities.mean(-2)
    load = loads(experts, probabilities.shape[-1]).to(mean_probability)
    return (load * mean_probability).sum(-1).mean()


def z_loss(logits: Float[Tensor, "*tokens n_experts"]) -> Float[Tensor, ""]:
    """Mean of ``(log Σ exp logits)²``, which keeps logits small (Zoph et al. 2022, equation 5)."""
    return logits.logsumexp(-1).square().mean()


def entropy(probabilities: Float[Tensor, "*tokens n_experts"]) -> Float[Tensor, ""]:
    """Mean over tokens of ``−Σ p log p`` in nats: 0 for a router that is sure, at most log N."""
    return torch.special.entr(probabilities).sum(-1).mean()
