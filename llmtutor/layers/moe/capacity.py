"""Chapter 18, moe: an expert that takes so many tokens of a text, and no more.

Switch (Fedus et al. 2021, section 2.2) gives each expert a place of fixed size, so that machines
know the shapes beforehand. Who comes when it is full is dropped: the layer adds nothing to it, and
the residual stream carries it on.
"""

import torch.nn.functional as F

from llmtutor.checks import check_number
from llmtutor.layers.moe.router import Routing


def capacity(factor: float, n_tokens: int, top_k: int, n_experts: int) -> int:
    """Tokens that an expert takes: ``factor`` times those that it would get if all got the same.

    >>> capacity(1.25, n_tokens=64, top_k=1, n_experts=8)
    10

    Raises:
        ValueError: a factor that leaves no room at all, so that every token would be dropped.
    """
    check_number("capacity_factor", factor, above=0)
    room = int(factor * n_tokens * top_k / n_experts)
    if room < 1:
        raise ValueError(
            f"capacity_factor = {factor:g} leaves no room for any token: {factor:g} · {n_tokens} "
            f"tokens · {top_k} / {n_experts} experts is below 1; take a larger factor or longer "
            "texts"
        )
    return room


def limited(routing: Routing, room: int) -> Routing:
    """The same, without those who come to an expert after the first ``room`` of their text.

    Tokens come in their order, and each with its best expert first. So whether a token is dropped
    depends on those before it alone, which keeps the layer causal. The weights of the others stay
    as they are.
    """
    n_experts = routing.scores.shape[-1]
    arrivals = F.one_hot(routing.experts.flatten(-2), n_experts)
    place = (arrivals.cumsum(-2) * arrivals).sum(-1).view_as(routing.experts)
    late = place > room
    return routing._replace(
        experts=routing.experts.masked_fill(late, n_experts),
        weights=routing.weights.masked_fill(late, 0.0),
    )
