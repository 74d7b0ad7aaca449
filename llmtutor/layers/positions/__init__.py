"""Chapter 05, positions, and chapter 06, rope: ways to tell attention where a token stands.

``Position`` is the common shape: three hooks, of which each scheme fills one.
"""

# ruff: noqa: F401 (the names that readers import)
from llmtutor.layers.positions.alibi import Alibi, AlibiConfig
from llmtutor.layers.positions.base import (
    AttentionPositionConfig,
    EmbeddingPositionConfig,
    NoPosition,
    NoPositionConfig,
    Position,
)
from llmtutor.layers.positions.learned import LearnedPosition, LearnedPositionConfig
from llmtutor.layers.positions.relative import (
    ShawPosition,
    ShawPositionConfig,
    T5Bias,
    T5BiasConfig,
)
from llmtutor.layers.positions.rope import Rope, RopeConfig, convert_pairing
from llmtutor.layers.positions.rope_scaling import (
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
    RopeScaling,
    YarnScaling,
)
from llmtutor.layers.positions.sinusoidal import SinusoidalPosition, SinusoidalPositionConfig
