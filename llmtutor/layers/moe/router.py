"""Chapter 18, moe: which experts a token goes to, and how much each of them counts.

A router is one small matrix. It gives every expert a score for every token; the best ``top_k`` are
chosen, and their scores become the weights of their outputs. Choosing has no gradient: the router
learns through the weights alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least, check_name, check_number
from llmtutor.layers.basic import Layer, Linear
from llmtutor.layers.part import Costs, Load, Part, Site

SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
}
"""Softmax: the experts compete, the scores of a token sum to 1 (Shazeer et al. 2017). Sigmoid: each
expert is judged by itself (DeepSeek-V3)."""

EVEN = 1e-6
"""A load this near to the mean differs from it by rounding alone."""


class Routing(NamedTuple):
    """What a router has decided."""

    experts: Int[Tensor, "*tokens top_k"]
    """The experts of each token, best first; ``n_experts`` where an expert has refused."""
    weights: Float[Tensor, "*tokens top_k"]
    """The factor of each of their outputs."""
    scores: Float[Tensor, "*tokens n_experts"]
    """Of all experts, chosen or not."""
    logits: Float[Tensor, "*tokens n_experts"]
    """What the scores were made of."""

    @property
    def probabilities(self) -> Float[Tensor, "*tokens n_experts"]:
        """The scores, made to sum to 1 for each token."""
        return self.scores / self.scores.sum(-1, keepdim=True)


@dataclass(frozen=True)
class RouterConfig(Part):
    """``Router``: what published routers differ in. As it comes, it is Mixtral's.

    DeepSeek-V2 does not normalise, DeepSeek-V3 takes sigmoids and balances without a loss
    (``bias_rate``), gpt-oss has ``logit_bias``.
    """

    kind: ClassVar[str] = "top-k"
    top_k: int = 2
    """Experts of a token."""
    score: str = "softmax"
    """One of ``SCORES``."""
    normalise: bool = True
    """Whether the weights of a token are made to sum to 1."""
    routed_scale: float = 1.0
    """Factor of all weights."""
    logit_bias: bool = False
    """Whether the logits have a learned bias."""
    n_groups: int = 1
    """Groups of neighbouring experts, such as those on one machine."""
    top_groups: int = 1
    """Groups in which a token may look for its experts."""
    group_score: Literal["max", "top-2"] = "max"
    """A group is as good as its best expert (DeepSeek-V2) or as its two best (DeepSeek-V3)."""
    bias_rate: float | None = None
    """Step of the bias that balances without a loss; None for no such bias."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, top_k=self.top_k, n_groups=self.n_groups, top_groups=self.top_groups)
        check_name("score", self.score, SCORES)
        check_number("routed_scale", self.routed_scale, above=0)
        check_at_least(self.top_groups, n_groups=self.n_groups)
        if self.bias_rate is not None and check_number("bias_rate", self.bias_rate) < 0:
            raise ValueError(f"bias_rate must be at least 0, got {self.bias_rate}")

    def check(self, n_experts: int) -> None:
        """Raise ``ValueError`` unless it can choose among so many experts."""
        if n_experts % self.n_groups:
            raise ValueError(
                f"n_groups must divide n_experts, got {self.n_groups} groups of {n_experts} experts"
            )
        allowed = n_experts // self.n_groups * self.top_groups
        if self.top_k > allowed:
            inside = "" if self.n_groups == 1 else f" in the {self.top_groups} best groups"
            raise ValueError(
                f"top_k = {self.top_k} experts for each token, but there are {allowed}{inside}: "
                "take a smaller top_k or more experts"
            )

    def build(self, site: Site, n_experts: int) -> "Router":
        """The layer."""
        return Router(site.d_model, n_experts, **self.values())

    def costs(self, site: Site, load: Load, n_experts: int) -> Costs:
        """Kept of a token: the scores, and those of the experts that were chosen."""
        n = site.d_model * n_experts
        kept = (n_experts + 3 * self.top_k) * load.tokens_bytes
        biased = n + self.logit_bias * n_experts
        return Costs(biased, biased, 2 * n, 0, kept)


class Router(Layer):
    """Scores of all experts, choice of the best ``top_k``, and their weights.

    ``options`` are the fields of ``RouterConfig``. Scores are taken in float32 at least: in
    bfloat16 two experts are equal too easily (Fedus et al. 2021, section 2.4).

    With ``bias_rate`` there is one number for each expert, ``correction``, that is added to the
    scores when experts are chosen, and only then; the weights are those of the scores themselves.
    ``correct`` moves it after each step (Wang et al. 2024, algorithm 1).

    >>> router = Router(2, n_experts=3, top_k=2)
    >>> router.linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> routing = router(torch.tensor([[0.0, 2.0]]))
    >>> routing.experts, routing.weights  # e² : e⁰
    (tensor([[1, 0]]), tensor([[0.8808, 0.1192]], grad_fn=<MulBackward0>))

    Raises:
        ValueError: what ``RouterConfig`` refuses, more experts to choose than there are.
    """

    def __init__(self, d_model: int, n_experts: int, **options: Any) -> None:
        config = RouterConfig(**options)
        super().__init__(n_experts=n_experts, **options)
        check_at_least(1, n_experts=n_experts)
        config.check(n_experts)
        self.config, self.n_experts = config, n_experts
        self.linear = Linear(d_model, n_experts, config.logit_bias)
        self.correction: Tensor | None
        corrected = config.bias_rate is not None
        self.register_buffer("correction", torch.zeros(n_experts) if corrected else None)

    def forward(self, x: Float[Tensor, "*tokens d_model"]) -> Routing:
        """The routing of each token."""
        config = self.config
        logits = self.linear(x)
        scores = SCORES[config.score](logits.to(torch.promote_types(logits.dtype, torch.float32)))
        experts = self._choice(scores.detach()).topk(config.top_k, dim=-1).indices
        weights = scores.gather(-1, experts)
        if config.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return Routing(experts, config.routed_scale * weights, scores, logits)

    def _choice(self, scores: Tensor) -> Tensor:
        """The scores by which experts are chosen: corrected, −inf outside of the best groups."""
        config = self.config
        if self.correction is not None:
            scores = scores + self.correction
        if config.n_groups == 1:
            return scores
        groups = scores.unflatten(-1, (config.n_groups, -1))
        n_best = 1 if config.group_score == "max" else min(2, groups.shape[-1])
        group_scores = groups.topk(n_best, dim=-1).values.sum(-1)
        best = group_scores.topk(config.top_groups, dim=-1).indices
        closed = torch.ones_like(group_scores, dtype=torch.bool).scatter(-1, best, False)
        return groups.masked_fill(closed.unsqueeze(-1), -math.inf).flatten(-2)

    @torch.no_grad()
    def correct(self, load: Float[Tensor, " n_experts"]) -> None:
        """After a step: up by ``bias_rate`` for experts with less than the mean load, else down.

        By its sign alone, however far from the mean; an expert that has just the mean stays.

        Raises:
            ValueError: a router without such a bias, a load of another shape.
        """
        if self.correction is None or self.config.bias_rate is None:
            raise ValueError("this router balances by no bias: give it a bias_rate")
        if load.shape != self.correction.shape:
            raise ValueError(
                f"load must be one number for each of {self.n_experts} experts, "
                f"got shape {tuple(load.shape)}"
            )
        short = load.mean() - load
        short = short.masked_fill(short.abs() < EVEN * load.mean(), 0.0)
        self.correction += self.config.bias_rate * short.sign().to(self.correction)
