"""Chapter 09, the transformer: Qwen 3 (Yang et al. 2025), without its mixtures of experts."""

from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import llama_parts
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.qwen2 import Qwen2
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.config import ModelConfig


class Qwen3(Qwen2):
    """A Qwen 2 with a norm of each head's queries and keys, and without biases."""

    model_type: ClassVar[str] = "qwen3"
    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    default_head_dim: ClassVar[int | None] = 128
    nulls: ClassVar[tuple[str, ...]] = ("num_key_value_heads",)

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        decoder = self.read_decoder(keys)
        options = {
            "qk_norm": RMSNormConfig(decoder.eps),
            "bias": keys.flag("attention_bias", False),
        }
        return self.read_stack(keys, decoder, options)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        mixer = llama_parts(config, 0)[0]
        return {**super().write(config), "attention_bias": mixer.bias}
