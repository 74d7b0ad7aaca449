"""Chapter 18, moe: the layer of experts, its configuration and what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_number
from llmtutor.layers.basic import Layer, Linear
from llmtutor.layers.extras import Extras
from llmtutor.layers.ffn import FeedForwardConfig
from llmtutor.layers.moe.balance import balance_loss, entropy, loads, z_loss
from llmtutor.layers.moe.capacity import capacity, limited
from llmtutor.layers.moe.dispatch import Dispatch, grouped
from llmtutor.layers.moe.router import RouterConfig, Routing
from llmtutor.layers.part import Costs, Load, Site


@dataclass(frozen=True)
class MoEConfig(FeedForwardConfig):
    """``MoE``. A model whose first layers are dense simply has other blocks there."""

    kind: ClassVar[str] = "moe"
    around: ClassVar[str] = "expert"
    expert: FeedForwardConfig
    """Each of the experts."""
    n_experts: int = 8
    """How many there are to choose from."""
    router: RouterConfig = RouterConfig()  # noqa: RUF009 (it is frozen)
    """Who chooses."""
    shared: FeedForwardConfig | None = None
    """An expert for every token besides (DeepSeekMoE; several are one of the width of all)."""
    shared_gate: bool = False
    """Whether a sigmoid of the token scales what the shared expert gives (Qwen2-MoE)."""
    capacity_factor: float | None = None
    """In training, room of an expert in each text as a multiple of the mean; None for any number.
    Who evaluates drops nothing, as DeepSeek-V2: read in pieces, a text would lose other tokens."""
    balance_loss: float = 0.01
    """Weight of the balance over all tokens of a batch."""
    sequence_loss: float = 0.0
    """Weight of the balance within each text."""
    z_loss: float = 0.0
    """Weight of the size of the logits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, n_experts=self.n_experts)
        self.router.check(self.n_experts)
        if self.capacity_factor is not None:
            check_number("capacity_factor", self.capacity_factor, above=0)
        for name in ("balance_loss", "sequence_loss", "z_loss"):
            if check_number(name, getattr(self, name)) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if isinstance(self.expert, MoEConfig) or isinstance(self.shared, MoEConfig):
            raise ValueError("an expert must be a feed-forward part by itself, not of experts")
        if self.shared_gate and self.shared is None:
            raise ValueError("shared_gate is for a shared expert, and there is none")

    def build(self, site: Site) -> "MoE":
        """The layer."""
        return MoE(self, site)

    def costs(self, site: Site, load: Load) -> Costs:
        """Flops and bytes of the experts that a token uses, parameters of all.

        Kept of a token besides: its copy for each of its experts, and what they give back.
        """
        k, d_model = self.router.top_k, site.d_model
        one = self.expert.costs(site, load)
        total = self.router.costs(site, load, self.n_experts) + Costs(
            parameters=self.n_experts * one.parameters,
            active=k * one.active,
            flops=k * one.flops,
            activation_bytes=k * (one.activation_bytes + 2 * d_model * load.tokens_bytes),
        )
        if self.shared is not None:
            total += self.shared.costs(site, load)
        if self.shared_gate:
            kept = (d_model + 1) * load.tokens_bytes
            total += Costs(d_model, d_model, 2 * d_model, activation_bytes=kept)
        return total


class MoE(Layer):
    """A mixture of experts: (..., seq, d_model) → the same shape, and ``Extras``.

    ``Σ w_i expert_i(x)`` over the experts that the router has chosen for x, plus the shared expert.
    The losses are "balance", "sequence" and "z", as far as their weights are above 0. The
    statistics are "load" of each expert (1 is the mean), "entropy" of the router, and "dropped",
    the share of choices that found no room.
    """

    def __init__(self, config: MoEConfig, site: Site) -> None:
        super().__init__(n_experts=config.n_experts)
        self.config = config
        self.router = config.router.build(site, config.n_experts)
        self.experts = nn.ModuleList(config.expert.build(site) for _ in range(config.n_experts))
        self.shared = None if config.shared is None else config.shared.build(site)
        self.shared_gate = Linear(site.d_model, 1) if config.shared_gate else None
        self.dispatch: Dispatch = grouped
        """``grouped``, or a function that gives the same."""

    def forward(self, x: Float[Tensor, "*batch seq d_model"]) -> tuple[Tensor, Extras]:
        """Each position by itself, but for those that are dropped."""
        routing = self.router(x)
        kept = self._with_room(routing)
        tokens = x.reshape(-1, x.shape[-1])
        y = self.dispatch(
            self.experts, tokens, kept.experts.flatten(0, -2), kept.weights.flatten(0, -2)
        ).view_as(x)
        if self.shared is not None:
            always = self.shared(x)
            if self.shared_gate is not None:
                always = self.shared_gate(x).sigmoid() * always
            y = y + always
        return y, Extras(self._losses(routing), self._statistics(routing, kept))

    def _with_room(self, routing: Routing) -> Routing:
        factor = self.config.capacity_factor
        if factor is None or not self.training:
            return routing
        seq, top_k = routing.experts.shape[-2:]
        return limited(routing, capacity(factor, seq, top_k, self.config.n_experts))

    def _losses(self, routing: Routing) -> dict[str, Tensor]:
        config, losses = self.config, {}
        if config.balance_loss:
            everything = routing.probabilities.flatten(0, -2), routing.experts.flatten(0, -2)
            losses["balance"] = config.balance_loss * balance_loss(*everything)
        if config.sequence_loss:
            each = balance_loss(routing.probabilities, routing.experts)
            losses["sequence"] = config.sequence_loss * each
        if config.z_loss:
            losses["z"] = config.z_loss * z_loss(routing.logits.to(routing.scores.dtype))
        return losses

    @torch.no_grad()
    def _statistics(self, routing: Routing, kept: Routing) -> dict[str, Tensor]:
        statistics = {
            "load": loads(routing.experts.flatten(0, -2), self.config.n_experts),
            "entropy": entropy(routing.probabilities),
        }
        if self.config.capacity_factor is not None:
            statistics["dropped"] = (kept.experts == self.config.n_experts).float().mean()
        return statistics

    def after_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Where the router balances by a bias: correct it by the load of the whole step."""
        if self.router.correction is not None:
            self.router.correct(statistics["load"].to(self.router.correction.device))
