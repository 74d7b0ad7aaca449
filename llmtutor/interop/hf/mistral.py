"""Chapter 09, the transformer: Mistral 7B and its kin (Jiang et al. 2023)."""

from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import DecoderFamily, llama_parts
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


class Mistral(DecoderFamily):
    """A Llama whose layers all look back through the same window, or through none."""

    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"
    default_kv_heads: ClassVar[int | None] = 8
    nulls: ClassVar[tuple[str, ...]] = ("head_dim",)

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        decoder = self.read_decoder(keys)
        mixer = AttentionConfig(
            **decoder.heads,
            position=read_rope(keys, decoder.shape),
            window=keys.size_or_none("sliding_window", 4096),
        )
        block = BlockConfig(mixer, decoder.ffn, RMSNormConfig(decoder.eps))
        return decoder.model(decoder.n_layers * (block,))

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        mixer, _, _, rope = llama_parts(config, 0)
        return {
            **self.write_decoder(config),
            "sliding_window": mixer.window,
            "rope_parameters": write_rope(rope),
        }
