"""Chapter 08, feed-forward: what each position does by itself, between two rounds of attention."""

import difflib
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.layers.basic import Linear

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
    if torch.compiler.is_compiling():
        # The same, for (1 + tanh z)/2 = σ(2z): torch compiles σ to a faster program than tanh.
        return x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x * x * x))
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
    "relu": F.relu,
    "sigmoid": F.sigmoid,
}
"""For ``GatedMLP``: the names in the paper are SwiGLU, GEGLU, ReGLU and GLU, in this order."""


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
        _check_widths(d_model, d_ff)
        self.up = Linear(d_model, d_ff, bias)
        self.down = Linear(d_ff, d_model, bias)

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
        _check_widths(d_model, d_ff)
        self.gate = Linear(d_model, d_ff, bias)
        self.up = Linear(d_model, d_ff, bias)
        self.down = Linear(d_ff, d_model, bias)

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
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, n=1, cutoff=0.0)
    raise ValueError(
        f"unknown activation {name!r}; did you mean {near[0]!r}? There are {', '.join(table)}"
    )


def _check_widths(d_model: int, d_ff: int) -> None:
    if d_model < 1 or d_ff < 1:
        raise ValueError(f"d_model and d_ff must be at least 1, got {d_model} and {d_ff}")
