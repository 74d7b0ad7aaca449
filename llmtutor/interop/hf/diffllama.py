"""Chapter 17, differential: DiffLlama, a Llama with differential attention (after Ye et al. 2024).

Its authors are of the community, not of the paper; no large model was published in this format.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import Decoder, DecoderFamily, llama_parts
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.differential import DifferentialConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


class DiffLlama(DecoderFamily):
    """Maps pair up half of the heads apart, as ours do; the norm of each head has no gain."""

    model_type: ClassVar[str] = "diffllama"
    architecture: ClassVar[str] = "DiffLlamaForCausalLM"
    default_eps: ClassVar[float] = 1e-5
    # The vectors behind λ are parameters of the layer itself.
    inside: ClassVar[Mapping[str, str]] = {**DecoderFamily.inside, "mixer": "self_attn"}

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        keys.take("lambda_std_dev", None)  # how the vectors behind λ were drawn
        decoder = self.read_decoder(keys)
        _check_pairs(keys, decoder)
        mixer = DifferentialConfig(
            **decoder.heads,
            position=read_rope(keys, decoder.shape),
            bias=keys.flag("attention_bias", False),
            gain=False,
            eps=decoder.eps,
        )
        block = BlockConfig(mixer, decoder.ffn, RMSNormConfig(decoder.eps))
        return decoder.model(decoder.n_layers * (block,))

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        mixer, _, _, rope = llama_parts(config, 0)
        return {
            **self.write_decoder(config),
            "attention_bias": mixer.bias,
            "rope_parameters": write_rope(rope),
        }


def _check_pairs(keys: Keys, decoder: Decoder) -> None:
    n_heads = decoder.heads["n_heads"]
    kv_heads = decoder.heads["n_kv_heads"] or n_heads
    for key, heads in (("num_attention_heads", n_heads), ("num_key_value_heads", kv_heads)):
        if heads % 2:
            raise keys.refused(key, heads, "an even number: two make a differential head")
