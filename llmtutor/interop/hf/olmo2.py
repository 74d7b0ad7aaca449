"""Chapter 09, the transformer: OLMo 2 (OLMo team 2025)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import ATTENTION, MLP, DecoderFamily, llama_parts
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


class Olmo2(DecoderFamily):
    """Norms of what each sub-layer adds, and of all queries and all keys as one vector."""

    model_type: ClassVar[str] = "olmo2"
    architecture: ClassVar[str] = "Olmo2ForCausalLM"
    inside: ClassVar[Mapping[str, str]] = {
        **ATTENTION,
        "norm_1": "post_attention_layernorm",
        **MLP,
        "norm_2": "post_feedforward_layernorm",
    }
    default_eps: ClassVar[float] = 1e-5

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        decoder = self.read_decoder(keys)
        norm = RMSNormConfig(decoder.eps)
        mixer = AttentionConfig(
            **decoder.heads,
            position=read_rope(keys, decoder.shape),
            bias=keys.flag("attention_bias", False),
            qk_norm=norm,
            qk_norm_over="heads",
        )
        block = BlockConfig(mixer, decoder.ffn, norm, "res-post")
        return decoder.model(decoder.n_layers * (block,))

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        mixer, _, _, rope = llama_parts(config, 0)
        return {
            **self.write_decoder(config),
            "attention_bias": mixer.bias,
            "rope_parameters": write_rope(rope),
        }
