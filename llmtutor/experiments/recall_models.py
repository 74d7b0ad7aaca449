"""Chapter 25, linear_attention: models that differ in what they hold pairs in, and in little else.

Of two rules that write into a state, one has the error term and the other has not; attention gets
the short convolution that all other layers have.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from llmtutor.checks import check_name
from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.attention.convolved import ConvolvedConfig
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.part import Site
from llmtutor.layers.positions import RopeConfig
from llmtutor.layers.recurrent.delta_net import DeltaNet, DeltaNetConfig
from llmtutor.layers.recurrent.linear_attention import linear_attention_chunked
from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig

KEYS = VALUES = 32
"""Tokens that can be keys, and the others, that can be values."""
LONGEST = 88
"""Tokens of the longest text."""
CONV_WIDTH = 4


class Adding(DeltaNet):
    """``DeltaNet`` without its error term: β v is written, whatever the state returns for k."""

    def _read(
        self, q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_keep: Any, cache: Any
    ) -> tuple[Tensor, Tensor]:
        return linear_attention_chunked(q, k, write[..., None] * v, chunk=self.chunk)


@dataclass(frozen=True)
class AddingConfig(DeltaNetConfig):
    """``Adding``."""

    kind: ClassVar[str] = "adding"

    def build(self, site: Site) -> Adding:
        """The layer."""
        return Adding(site.d_model, **self.values())


HEADS = 2
ROPE = RopeConfig()
BARE: dict[str, Any] = {"conv_width": CONV_WIDTH, "fades": False, "output_gate": False}
"""The rules alone: nothing fades, and nothing gates what was read."""
SMALL: dict[str, Any] = BARE | {"head_dim": 8}
"""Heads of 8 in the place of 16: together they hold 128 numbers a layer, and not 512."""
MIXERS: Mapping[str, MixerConfig] = {
    "attention": ConvolvedConfig(HEADS, conv_width=CONV_WIDTH, position=ROPE),
    "attention without convolution": AttentionConfig(HEADS, position=ROPE),
    "adds": AddingConfig(HEADS, **BARE),
    "delta rule": DeltaNetConfig(HEADS, **BARE),
    "adds, one layer": AddingConfig(HEADS, **BARE),
    "delta rule, one layer": DeltaNetConfig(HEADS, **BARE),
    "adds, small state": AddingConfig(HEADS, **SMALL),
    "delta rule, small state": DeltaNetConfig(HEADS, **SMALL),
    "hybrid, small state": DeltaNetConfig(HEADS, **SMALL),
    "mamba": MambaConfig(16),
}
"""What a model has for its mixer; the last of four blocks of the hybrid has plain attention."""
BASE = ModelConfig.uniform(
    *(KEYS + VALUES, LONGEST),
    n_layers=4,
    d_model=32,
    n_heads=HEADS,
    d_ff=96,
    init="glorot",
    tie_weights=False,
)


def recall_config(name: str) -> ModelConfig:
    """A model by name, of the size of the one with plain attention: ``d_ff`` makes up for the rest.

    Raises:
        ValueError: an unknown name (with the nearest one).
    """
    mixer = MIXERS[check_name("model", name, MIXERS)]
    base = BASE.replace(n_layers=1) if name.endswith("one layer") else BASE

    def of_width(d_ff: int) -> ModelConfig:
        changed = base.replace(mixer=mixer, d_ff=d_ff)
        if not name.startswith("hybrid"):
            return changed
        return changed.replace(blocks=changed.blocks[:3] + base.replace(d_ff=d_ff).blocks[-1:])

    one, two = (parameters(of_width(d_ff)).total for d_ff in (1, 2))  # linear in d_ff
    return of_width(1 + round((parameters(base).total - one) / (two - one)))
