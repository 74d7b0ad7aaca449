"""Chapter 08, feed-forward: the gated layer of gpt-oss, whose gate and values are bounded."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_number
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, tag
from llmtutor.layers.ffn import FeedForwardConfig
from llmtutor.layers.part import Costs, Load, Site


class ClampedGatedMLP(Layer):
    """``down((u + 1) · g σ(slope · g))``: g is ``gate(x)``, at most ``limit``, u is ``up(x)``
    within ±``limit``.

    The code published with gpt-oss (OpenAI 2025). With a slope of 1.702 the activation is close to
    GELU; the 1 lets the gate through where u is 0. (..., d_model) → (..., d_model).

    Raises:
        ValueError: sizes below 1, a limit or slope not above 0, an input of another width.
    """

    def __init__(
        self, d_model: int, d_ff: int, bias: bool = True, limit: float = 7.0, slope: float = 1.702
    ) -> None:
        super().__init__(limit=limit, slope=slope)
        check_at_least(1, d_model=d_model, d_ff=d_ff)
        self.limit = check_number("limit", limit, above=0)
        self.slope = check_number("slope", slope, above=0)
        self.gate = Linear(d_model, d_ff, bias)
        self.up = Linear(d_model, d_ff, bias)
        self.down = tag(Linear(d_ff, d_model, bias), RESIDUAL)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Each position by itself."""
        gate = self.gate(x).clamp(max=self.limit)
        up = self.up(x).clamp(-self.limit, self.limit)
        return self.down((up + 1) * (gate * (self.slope * gate).sigmoid()))


@dataclass(frozen=True)
class ClampedGatedMLPConfig(FeedForwardConfig):
    """``ClampedGatedMLP``."""

    kind: ClassVar[str] = "clamped-mlp"
    d_ff: int
    """Inner width, of each branch."""
    bias: bool = True
    """Of all matrices."""
    limit: float = 7.0
    """Bound of both branches."""
    slope: float = 1.702
    """Of the sigmoid in the gate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, d_ff=self.d_ff)
        for name in ("limit", "slope"):
            check_number(name, getattr(self, name), above=0)

    def build(self, site: Site) -> nn.Module:
        """The layer."""
        return ClampedGatedMLP(site.d_model, **self.values())

    def costs(self, site: Site, load: Load) -> Costs:
        """Kept of a token: both branches before and after their bound, the gate's sigmoid, what
        the gate gives, and the product."""
        matrices = 3 * site.d_model * self.d_ff
        n = matrices + self.bias * (2 * self.d_ff + site.d_model)
        return Costs(n, n, 2 * matrices, 0, 7 * self.d_ff * load.tokens_bytes)
