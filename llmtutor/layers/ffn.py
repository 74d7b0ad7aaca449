"""Chapter 08, feed-forward: what each position does by itself, between two rounds of attention."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_name, check_number
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, tag
from llmtutor.layers.part import Costs, Load, Part, Site

Activation = Callable[[Tensor], Tensor]


def relu2(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Squared ReLU, ``max(x, 0)²`` (So et al. 2021, Primer)."""
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


class MLP(Layer):
    """``down(act(up(x)))``: (..., d_model) → (..., d_ff) → (..., d_model), position by position.

    Vaswani et al. 2017, section 3.3 (relu, d_ff = 4 d_model); GPT-2 takes gelu_tanh and biases.

    Raises:
        ValueError: sizes below 1, an unknown activation, an input of another width.
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "gelu", bias: bool = False
    ) -> None:
        super().__init__(activation=activation)
        self.act = ACTIVATIONS[check_name("activation", activation, ACTIVATIONS)]
        check_at_least(1, d_model=d_model, d_ff=d_ff)
        self.up = Linear(d_model, d_ff, bias)
        self.down = tag(Linear(d_ff, d_model, bias), RESIDUAL)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Each position by itself."""
        return self.down(self.act(self.up(x)))


class GatedMLP(Layer):
    """``down(act(gate(x)) · up(x))``: what goes up is let through as far as the gate opens.

    Shazeer 2020, section 2; ``activation="silu"`` is SwiGLU, the feed-forward layer of Llama.
    (..., d_model) → (..., d_model). *Both* projections read x: feeding the gate's output into
    ``up`` would be a deeper MLP with nothing to gate. Three matrices instead of two: equal
    parameters need a ``d_ff`` of 2/3 (``swiglu_width``). It refuses what ``MLP`` does.
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "silu", bias: bool = False
    ) -> None:
        super().__init__(activation=activation)
        self.act = GATES[check_name("activation", activation, GATES)]
        check_at_least(1, d_model=d_model, d_ff=d_ff)
        self.gate = Linear(d_model, d_ff, bias)
        self.up = Linear(d_model, d_ff, bias)
        self.down = tag(Linear(d_ff, d_model, bias), RESIDUAL)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Each position by itself."""
        return self.down(self.act(self.gate(x)) * self.up(x))


def swiglu_width(d_model: int, multiple_of: int = 64, ratio: float = 8 / 3) -> int:
    """Width of a gated layer with the parameters of an MLP of width 4 d_model: the 2/3 rule.

    Two matrices of 4 d² equal three of (8/3) d². The whole part of ``ratio · d_model`` goes *up*
    to a multiple of ``multiple_of``, as in Llama's code; matrix units like round sizes.

    >>> swiglu_width(4096, multiple_of=256)  # Llama 7B
    11008

    Raises:
        ValueError: d_model or multiple_of below 1, ratio not above 0.
    """
    check_at_least(1, d_model=d_model, multiple_of=multiple_of)
    width = int(check_number("ratio", ratio, above=0) * d_model)
    return max(-(-width // multiple_of), 1) * multiple_of


class FeedForwardConfig(Part, ABC):
    """The configuration of a feed-forward part."""

    present: ClassVar[bool] = True
    """Whether there is one: a block without has one sub-layer, and no norm for another."""

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """The layer: (batch, seq, d_model) → the same shape, or that and its ``Extras``."""

    @abstractmethod
    def costs(self, site: Site, load: Load) -> Costs:
        """At its place under a load."""


@dataclass(frozen=True)
class DenseConfig(FeedForwardConfig):
    """What both layers above are told, of which every token uses all."""

    layer: ClassVar[type[nn.Module]]
    """What it builds."""
    branches: ClassVar[int]
    """Matrices that read the input."""
    activations: ClassVar[Mapping[str, Activation]]
    d_ff: int
    """Inner width, of each branch."""
    activation: str
    """One of ``activations``."""
    bias: bool = False
    """Of all matrices."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, d_ff=self.d_ff)
        check_name("activation", self.activation, self.activations)

    def build(self, site: Site) -> nn.Module:
        """The layer."""
        return self.layer(site.d_model, **self.values())

    def costs(self, site: Site, load: Load) -> Costs:
        """Kept of a token: the branches, their product, and what goes into the activation."""
        matrices = (self.branches + 1) * site.d_model * self.d_ff
        n = matrices + self.bias * (self.branches * self.d_ff + site.d_model)
        kept = 2 * self.branches
        if self.activation in ("relu", "sigmoid"):  # they have their derivative in their output
            kept -= 1
        return Costs(n, n, 2 * matrices, 0, kept * self.d_ff * load.tokens_bytes)


@dataclass(frozen=True)
class MLPConfig(DenseConfig):
    """``MLP``."""

    kind: ClassVar[str] = "mlp"
    layer = MLP
    branches = 1
    activations = ACTIVATIONS
    activation: str = "gelu"


@dataclass(frozen=True)
class GatedMLPConfig(DenseConfig):
    """``GatedMLP``."""

    kind: ClassVar[str] = "gated-mlp"
    layer = GatedMLP
    branches = 2
    activations = GATES
    activation: str = "silu"


@dataclass(frozen=True)
class NoFeedForwardConfig(FeedForwardConfig):
    """Nothing: the block is its mixer alone, as in Mamba, whose mixer is wide inside."""

    kind: ClassVar[str] = "no-ffn"
    present: ClassVar[bool] = False

    def build(self, site: Site) -> nn.Module:
        """Never asked for.

        Raises:
            ValueError: always.
        """
        raise ValueError("a block with ffn 'no-ffn' has no feed-forward part to build")

    def costs(self, site: Site, load: Load) -> Costs:
        """Nothing."""
        return Costs()
