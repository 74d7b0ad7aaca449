"""Chapter 08, feed-forward: what each position does by itself, between two rounds of attention."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_name
from llmtutor.layers.basic import RESIDUAL, Linear, tag
from llmtutor.layers.part import Costs, Load, Part, Site

Activation = Callable[[Tensor], Tensor]


def relu2(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Squared ReLU, ``max(x, 0)²`` (So et al. 2021, Primer).

    >>> import torch
    >>> relu2(torch.tensor([-2.0, 3.0]))
    tensor([0., 9.])
    """
    return x.relu().square()


def gelu_tanh(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The approximation of GELU in GPT-2: ``x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))``."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "relu2": relu2,
    "silu": F.silu,
}
"""For ``MLP``: gelu is ``x Φ(x)`` with Φ the normal distribution function (Hendrycks and Gimpel
2016), silu is ``x σ(x)``, also called swish; relu is ``max(x, 0)``."""

GATES: Mapping[str, Activation] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "sigmoid": F.sigmoid,
}
"""For ``GatedMLP``: the names in the paper are SwiGLU (silu), GEGLU (gelu), ReGLU (relu) and GLU
(sigmoid)."""


class MLP(nn.Module):
    """``down(act(up(x)))``: (..., d_model) → (..., d_ff) → (..., d_model), position by position.

    Vaswani et al. 2017, section 3.3 (relu, d_ff = 4 d_model); GPT-2 takes gelu_tanh and biases.

    Raises:
        ValueError: sizes below 1, an unknown activation, an input of another width.
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "gelu", bias: bool = False
    ) -> None:
        super().__init__()
        self.activation, self.act = activation, _pick(activation, ACTIVATIONS)
        check_at_least(1, d_model=d_model, d_ff=d_ff)
        self.up = Linear(d_model, d_ff, bias)
        self.down = tag(Linear(d_ff, d_model, bias), RESIDUAL)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Each position by itself."""
        return self.down(self.act(self.up(x)))

    def extra_repr(self) -> str:
        """The activation, for ``print(model)``."""
        return f"activation={self.activation!r}"


class GatedMLP(nn.Module):
    """``down(act(gate(x)) · up(x))``: what goes up is let through as far as the gate opens.

    Shazeer 2020, section 2; ``activation="silu"`` is SwiGLU, the feed-forward layer of Llama.
    (..., d_model) → (..., d_model). *Both* projections read x: feeding the gate's output into
    ``up`` would be a deeper MLP with nothing to gate. Three matrices instead of two: equal
    parameters need a ``d_ff`` of 2/3 (``swiglu_width``).

    Raises:
        ValueError: sizes below 1, an unknown activation, an input of another width.
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "silu", bias: bool = False
    ) -> None:
        super().__init__()
        self.activation, self.act = activation, _pick(activation, GATES)
        check_at_least(1, d_model=d_model, d_ff=d_ff)
        self.gate = Linear(d_model, d_ff, bias)
        self.up = Linear(d_model, d_ff, bias)
        self.down = tag(Linear(d_ff, d_model, bias), RESIDUAL)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Each position by itself."""
        return self.down(self.act(self.gate(x)) * self.up(x))

    def extra_repr(self) -> str:
        """The activation, for ``print(model)``."""
        return f"activation={self.activation!r}"


def swiglu_width(d_model: int, multiple_of: int = 64, ratio: float = 8 / 3) -> int:
    """Width of a gated layer with the parameters of an MLP of width 4 d_model: the 2/3 rule.

    Two matrices of 4 d² equal three of (8/3) d². The whole part of ``ratio · d_model`` goes *up*
    to a multiple of ``multiple_of``, as in Llama's code; matrix units like round sizes.

    >>> swiglu_width(4096, multiple_of=256)  # Llama 7B
    11008

    Raises:
        ValueError: d_model or multiple_of below 1, ratio not above 0.
    """
    if d_model < 1 or multiple_of < 1 or not ratio > 0:
        raise ValueError(
            "need d_model >= 1, multiple_of >= 1 and ratio > 0, "
            f"got {d_model}, {multiple_of} and {ratio}"
        )
    width = int(ratio * d_model)
    return max(-(-width // multiple_of), 1) * multiple_of


def _pick(name: str, table: Mapping[str, Activation]) -> Activation:
    return table[check_name("activation", name, table)]


class FeedForwardConfig(Part, ABC):
    """The configuration of a feed-forward part."""

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """The layer: (batch, seq, d_model) → the same shape, or that and its ``Extras``."""

    @abstractmethod
    def costs(self, site: Site, load: Load) -> Costs:
        """At its place under a load."""


@dataclass(frozen=True)
class MLPConfig(FeedForwardConfig):
    """``MLP``."""

    kind: ClassVar[str] = "mlp"
    d_ff: int
    """Inner width."""
    activation: str = "gelu"
    """One of ``ACTIVATIONS``."""
    bias: bool = False
    """Of both matrices."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, d_ff=self.d_ff)
        check_name("activation", self.activation, ACTIVATIONS)

    def build(self, site: Site) -> MLP:
        """The layer."""
        return MLP(site.d_model, self.d_ff, self.activation, self.bias)

    def costs(self, site: Site, load: Load) -> Costs:
        """Kept of a token: the input of the second matrix, and of the activation if it needs it."""
        matrices = 2 * site.d_model * self.d_ff
        n = matrices + self.bias * (self.d_ff + site.d_model)
        kept = 1 if self.activation == "relu" else 2  # relu has its derivative in its output
        return Costs(n, n, 2 * matrices, 0, kept * self.d_ff * load.tokens_bytes)


@dataclass(frozen=True)
class GatedMLPConfig(FeedForwardConfig):
    """``GatedMLP``."""

    kind: ClassVar[str] = "gated-mlp"
    d_ff: int
    """Inner width, of each of the two branches."""
    activation: str = "silu"
    """One of ``GATES``."""
    bias: bool = False
    """Of all three matrices."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, d_ff=self.d_ff)
        check_name("activation", self.activation, GATES)

    def build(self, site: Site) -> GatedMLP:
        """The layer."""
        return GatedMLP(site.d_model, self.d_ff, self.activation, self.bias)

    def costs(self, site: Site, load: Load) -> Costs:
        """Kept of a token: the two factors and their product, and the input of silu or gelu."""
        matrices = 3 * site.d_model * self.d_ff
        n = matrices + self.bias * (2 * self.d_ff + site.d_model)
        kept = 3 if self.activation in ("relu", "sigmoid") else 4
        return Costs(n, n, 2 * matrices, 0, kept * self.d_ff * load.tokens_bytes)
