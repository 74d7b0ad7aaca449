"""Chapter 11, training: what leaves a model besides its logits.

A router wants its experts used evenly and wants to be watched. Such terms and figures leave a layer
as a second return value and meet the plain loss at the end of the step; what is logged, plotted and
compared is the plain loss alone.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Extras(NamedTuple):
    """What a layer returns besides its output."""

    losses: dict[str, Tensor] = {}  # noqa: RUF012 (nobody writes into it)
    """Scalars to be added to the loss of a batch, each times its weight already."""
    statistics: dict[str, Tensor] = {}  # noqa: RUF012
    """Figures to be shown; no gradient comes from them."""


@runtime_checkable
class AfterStep(Protocol):
    """A layer that changes something by a rule of its own, not by a gradient."""

    def after_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Called once after the optimizer, with the layer's statistics over the whole step."""


def split_extras(result: Tensor | tuple[Tensor, Extras]) -> tuple[Tensor, Extras]:
    """Output and extras of a layer; most layers return an output alone."""
    return result if isinstance(result, tuple) else (result, Extras())


def named(extras: Extras, place: str) -> Extras:
    """The same with the place in front of every name: "balance" → "blocks.0.ffn.balance"."""
    return Extras(*({f"{place}.{name}": x for name, x in part.items()} for part in extras))


def joined(a: Extras, b: Extras) -> Extras:
    """Those of both."""
    return Extras({**a.losses, **b.losses}, {**a.statistics, **b.statistics})
