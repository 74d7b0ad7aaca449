"""Chapter 18, moe: Mixtral 8x7B and 8x22B (Jiang et al. 2024)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import ATTENTION, DecoderFamily, llama_parts
from llmtutor.interop.hf.experts import mixture, read_experts, without_experts
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


class Mixtral(DecoderFamily):
    """A Mistral whose feed-forward layers are experts, of which the router weighs the best two.

    Weights lie in a file as they were published, one matrix for each expert; the library stacks
    them when it opens it.
    """

    model_type: ClassVar[str] = "mixtral"
    architecture: ClassVar[str] = "MixtralForCausalLM"
    default_eps: ClassVar[float] = 1e-5
    default_kv_heads: ClassVar[int | None] = 8
    nulls: ClassVar[tuple[str, ...]] = ("head_dim",)
    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "input_layernorm",
        **ATTENTION,
        "norm_2": "post_attention_layernorm",
        "ffn.router.linear": "block_sparse_moe.gate",
        "ffn.experts.*.gate": "block_sparse_moe.experts.*.w1",
        "ffn.experts.*.up": "block_sparse_moe.experts.*.w3",
        "ffn.experts.*.down": "block_sparse_moe.experts.*.w2",
    }

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        decoder = self.read_decoder(keys)
        mixer = AttentionConfig(
            **decoder.heads,
            position=read_rope(keys, decoder.shape, default=1e6),
            window=keys.size_or_none("sliding_window", None),
        )
        ffn = read_experts(keys, decoder.ffn, "num_local_experts", 8, top_k=2)
        block = BlockConfig(mixer, ffn, RMSNormConfig(decoder.eps))
        return decoder.model(decoder.n_layers * (block,))

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        dense, ffn = without_experts(config), mixture(config, 0)
        mixer, _, _, rope = llama_parts(dense, 0)
        return {
            **self.write_decoder(dense),
            "num_local_experts": ffn.n_experts,
            "num_experts_per_tok": ffn.router.top_k,
            "sliding_window": mixer.window,
            "rope_parameters": write_rope(rope),
        }
