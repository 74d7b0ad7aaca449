"""Chapter 05, positions, and chapter 06, rope: ways to tell attention where a token stands.

``Position`` is the common shape: three hooks, of which each scheme fills one.
"""

from llmtutor.layers.positions.alibi import Alibi
from llmtutor.layers.positions.base import NoPosition, Position
from llmtutor.layers.positions.learned import LearnedPosition
from llmtutor.layers.positions.relative import ShawPosition, T5Bias
from llmtutor.layers.positions.rope import Rope, convert_pairing
from llmtutor.layers.positions.rope_scaling import (
    LinearScaling,
    NtkScaling,
    RopeScaling,
    YarnScaling,
)
from llmtutor.layers.positions.sinusoidal import SinusoidalPosition

__all__ = [
    "Alibi",
    "LearnedPosition",
    "LinearScaling",
    "NoPosition",
    "NtkScaling",
    "Position",
    "Rope",
    "RopeScaling",
    "ShawPosition",
    "SinusoidalPosition",
    "T5Bias",
    "YarnScaling",
    "convert_pairing",
]
