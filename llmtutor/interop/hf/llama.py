"""Chapter 09, the transformer: Llama 1 to 3.2 (Touvron et al. 2023; Grattafiori et al. 2024)."""

from dataclasses import replace
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import DecoderFamily, llama_parts
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


class Llama(DecoderFamily):
    """RMSNorm before each sub-layer, RoPE, SwiGLU; biases in all projections, or in none."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    divides: ClassVar[bool] = True

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        keys.only({"is_llama_config": True, "rope_interleaved": False})  # of SmolLM
        decoder = self.read_decoder(keys)
        mixer = AttentionConfig(
            **decoder.heads,
            position=read_rope(keys, decoder.shape),
            bias=keys.flag("attention_bias", False),
        )
        ffn = replace(decoder.ffn, bias=keys.flag("mlp_bias", False))
        block = BlockConfig(mixer, ffn, RMSNormConfig(decoder.eps))
        return decoder.model(decoder.n_layers * (block,))

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        mixer, ffn, _, rope = llama_parts(config, 0)
        return {
            **self.write_decoder(config),
            "attention_bias": mixer.bias,
            "mlp_bias": ffn.bias,
            "rope_parameters": write_rope(rope),
        }
