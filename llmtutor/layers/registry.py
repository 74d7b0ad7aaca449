"""Chapter 09, the transformer: the one place where the ``kind`` of a part becomes a class.

A variant is one file and one line in ``PARTS``. Nothing else in the package asks for a kind.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from llmtutor.checks import check_name
from llmtutor.layers import positions
from llmtutor.layers.attention.blockwise import BlockwiseConfig
from llmtutor.layers.attention.convolved import ConvolvedConfig
from llmtutor.layers.attention.differential import DifferentialConfig
from llmtutor.layers.attention.differential_v2 import DifferentialV2Config
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.latent import LatentAttentionConfig
from llmtutor.layers.attention.streaming import StreamingConfig
from llmtutor.layers.clamped import ClampedGatedMLPConfig
from llmtutor.layers.ffn import GatedMLPConfig, MLPConfig, NoFeedForwardConfig
from llmtutor.layers.moe import MoEConfig, RouterConfig
from llmtutor.layers.norms import LayerNormConfig, RMSNormConfig
from llmtutor.layers.part import Part, field_names
from llmtutor.layers.recurrent.delta_net import DeltaNetConfig
from llmtutor.layers.recurrent.linear_attention import LinearAttentionConfig
from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.layers.recurrent.s4d import S4DConfig

P = TypeVar("P", bound=Part)

PARTS: dict[str, type[Part]] = {
    part.kind: part
    for part in (
        # Mixers
        AttentionConfig,
        ConvolvedConfig,
        DifferentialConfig,
        DifferentialV2Config,
        LatentAttentionConfig,
        LinearAttentionConfig,
        DeltaNetConfig,
        MambaConfig,
        S4DConfig,
        StreamingConfig,
        BlockwiseConfig,
        # Feed-forward parts
        MLPConfig,
        GatedMLPConfig,
        ClampedGatedMLPConfig,
        MoEConfig,
        NoFeedForwardConfig,
        # Norms
        LayerNormConfig,
        RMSNormConfig,
        # Positions, below the blocks and in attention
        positions.LearnedPositionConfig,
        positions.SinusoidalPositionConfig,
        positions.NoPositionConfig,
        positions.RopeConfig,
        positions.AlibiConfig,
        positions.T5BiasConfig,
        positions.ShawPositionConfig,
        # Scalings of RoPE
        positions.LinearScaling,
        positions.NtkScaling,
        positions.YarnScaling,
        positions.Llama3Scaling,
        # Routers of experts
        RouterConfig,
    )
}


def kinds(role: type[P]) -> dict[str, type[P]]:
    """The registered parts of a role, such as ``MixerConfig``, by kind."""
    return {kind: part for kind, part in PARTS.items() if issubclass(part, role)}


def part_from_dict(values: Any, role: type[P], where: str) -> P:
    """The configuration that ``Part.to_dict`` wrote; ``where`` names its place in messages.

    >>> from llmtutor.layers.norms import NormConfig
    >>> part_from_dict({"kind": "rmsnorm", "eps": 1e-6}, NormConfig, "norm")
    RMSNormConfig(eps=1e-06, offset=False)

    Raises:
        ValueError: no object with a "kind", an unknown kind or field (with the nearest one), a
            field that is missing, a bad value.
    """
    if not isinstance(values, Mapping) or "kind" not in values:
        raise ValueError(f'{where} must be an object with a "kind", got {values!r}')
    part = kinds(role)[check_name(f"kind of {where}", values["kind"], kinds(role))]
    given = {name: value for name, value in values.items() if name != "kind"}
    for name, value in given.items():
        check_name(f"field of {where}", name, field_names(part))
        if isinstance(value, Mapping):
            given[name] = part_from_dict(value, Part, f"{where}.{name}")
    needed = [f.name for f in fields(part) if f.default is MISSING]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"{where} ({values['kind']}) lacks {', '.join(missing)}")
    try:
        return part(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
