"""Chapter 09, the transformer: Gemma 2 (Riviere et al. 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import (
    ATTENTION,
    FULL,
    GATES,
    MLP,
    SLIDING,
    Decoder,
    DecoderFamily,
    llama_parts,
    read_windows,
    write_windows,
)
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import RopeConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

WINDOW = 4096
"""The library's default."""


@dataclass(frozen=True)
class Gemma:
    """What both generations say besides the sizes."""

    decoder: Decoder
    """The sizes."""
    norm: RMSNormConfig
    """All norms."""
    scale: float | None
    """Of the scores; None for 1/√head_dim."""
    bias: bool
    """Of all four projections."""
    logit_softcap: float | None
    """Bound of the logits."""

    def block(self, window: int | None, position: RopeConfig, **options: Any) -> BlockConfig:
        """A block with norms before and after both sub-layers."""
        mixer = AttentionConfig(
            **self.decoder.heads,
            position=position,
            window=window,
            scale=self.scale,
            bias=self.bias,
            **options,
        )
        return BlockConfig(mixer, self.decoder.ffn, self.norm, "sandwich")

    def model(self, blocks: list[BlockConfig]) -> ModelConfig:
        """The whole; embeddings are multiplied by √d_model."""
        return self.decoder.model(
            blocks,
            embedding_scale=self.decoder.d_model**0.5,
            logit_softcap=self.logit_softcap,
        )


class GemmaFamily(DecoderFamily):
    """What both generations share."""

    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "input_layernorm",
        **ATTENTION,
        "after_1": "post_attention_layernorm",
        "norm_2": "pre_feedforward_layernorm",
        **MLP,
        "after_2": "post_feedforward_layernorm",
    }
    activation: ClassVar[str] = "hidden_activation"
    default_activation: ClassVar[str] = "gelu_pytorch_tanh"
    default_tied: ClassVar[bool] = True
    default_head_dim: ClassVar[int | None] = 256
    default_kv_heads: ClassVar[int | None] = 4
    nulls: ClassVar[tuple[str, ...]] = ()
    default_logit_softcap: ClassVar[float | None] = None
    divides: ClassVar[bool] = True

    def read_gemma(self, keys: Keys) -> Gemma:
        """Take what both generations say."""
        older = (
            keys.name("hidden_act", GATES, "gelu_pytorch_tanh") if "hidden_act" in keys else None
        )
        decoder = self.read_decoder(keys)
        if older not in (None, decoder.ffn.activation):
            raise keys.refused("hidden_act", older, "what hidden_activation says, or nothing")
        keys.only({"use_bidirectional_attention": False})
        scalar = keys.size("query_pre_attn_scalar", 256)
        return Gemma(
            decoder=decoder,
            norm=RMSNormConfig(decoder.eps, offset=True),
            scale=None if scalar == decoder.head_dim else scalar**-0.5,
            bias=keys.flag("attention_bias", False),
            logit_softcap=keys.number_or_none(
                "final_logit_softcapping", self.default_logit_softcap
            ),
        )

    def write_gemma(self, config: ModelConfig) -> dict[str, Any]:
        """The keys that ``read_gemma`` takes, and the windows."""
        mixer = llama_parts(config, 0)[0]
        head_dim = mixer.width(config.d_model)
        window, types = write_windows(config)
        return {
            **self.write_decoder(config),
            "attention_bias": mixer.bias,
            # The library wants a whole number; a scale that none gives is found by reading it.
            "query_pre_attn_scalar": head_dim if mixer.scale is None else round(mixer.scale**-2),
            "final_logit_softcapping": config.logit_softcap,
            "sliding_window": WINDOW if window is None else window,
            "layer_types": types,
        }


class Gemma2(GemmaFamily):
    """Windows in every other layer, sandwich norms, scores and logits that are bounded."""

    model_type: ClassVar[str] = "gemma2"
    architecture: ClassVar[str] = "Gemma2ForCausalLM"
    default_logit_softcap: ClassVar[float | None] = 30.0

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        gemma = self.read_gemma(keys)
        decoder = gemma.decoder
        softcap = keys.number_or_none("attn_logit_softcapping", 50.0)
        window = keys.size_or_none("sliding_window", WINDOW)
        keys.only({"sliding_window_size": window})  # of the first files, which say it twice
        types = [FULL if i % 2 else SLIDING for i in range(decoder.n_layers)]
        position = read_rope(keys, decoder.shape)
        return gemma.model(
            [
                gemma.block(window, position, softcap=softcap)
                for window in read_windows(keys, window, types)
            ]
        )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        mixer, _, _, rope = llama_parts(config, 0)
        return {
            **self.write_gemma(config),
            "attn_logit_softcapping": mixer.softcap,
            "rope_parameters": write_rope(rope),
        }
