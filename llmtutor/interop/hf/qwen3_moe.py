"""Chapter 18, moe: the Qwen 3 with experts, such as 30B-A3B (Yang et al. 2025)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import DecoderFamily, llama_parts
from llmtutor.interop.hf.experts import mixture, read_experts, without_experts
from llmtutor.interop.hf.keys import DEEPEST, Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.moe import MoEConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


class Qwen3Moe(DecoderFamily):
    """A Qwen 3 whose layers have experts, but for those that the file names as dense."""

    model_type: ClassVar[str] = "qwen3_moe"
    architecture: ClassVar[str] = "Qwen3MoeForCausalLM"
    default_kv_heads: ClassVar[int | None] = 4
    nulls: ClassVar[tuple[str, ...]] = ()
    inside: ClassVar[Mapping[str, str]] = {
        **DecoderFamily.inside,
        "ffn.router.linear": "mlp.gate",
        "ffn.experts.*.gate": "mlp.experts.*.gate_proj",
        "ffn.experts.*.up": "mlp.experts.*.up_proj",
        "ffn.experts.*.down": "mlp.experts.*.down_proj",
    }

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        keys.take("max_window_layers", None)  # of Qwen 3; the library does not look at it here
        decoder = self.read_decoder(keys)
        window = keys.size_or_none("sliding_window", 4096)
        mixer = AttentionConfig(
            **decoder.heads,
            position=read_rope(keys, decoder.shape),
            window=window if keys.flag("use_sliding_window", False) else None,
            qk_norm=RMSNormConfig(decoder.eps),
            bias=keys.flag("attention_bias", False),
        )
        dense, norm = decoder.ffn, RMSNormConfig(decoder.eps)
        experts = read_experts(
            keys,
            replace(dense, d_ff=keys.size("moe_intermediate_size", 768)),
            "num_local_experts" if "num_local_experts" in keys else "num_experts",
            default=128,
            top_k=8,
            normalise=keys.flag("norm_topk_prob", False),
        )
        is_dense = dense_layers(keys, decoder.n_layers)
        ffns = [dense if i in is_dense else experts for i in range(decoder.n_layers)]
        return decoder.model([BlockConfig(mixer, ffn, norm) for ffn in ffns])

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        kinds = [isinstance(block.ffn, MoEConfig) for block in config.blocks]
        first = kinds.index(True) if any(kinds) else 0
        ffn, single = mixture(config, first), without_experts(config)
        mixer, expert, _, rope = llama_parts(single, first)
        dense = next((i for i, kind in enumerate(kinds) if not kind), first)
        return {
            **self.write_decoder(single),
            "intermediate_size": llama_parts(single, dense)[1].d_ff,
            "moe_intermediate_size": expert.d_ff,
            "num_experts": ffn.n_experts,
            "num_experts_per_tok": ffn.router.top_k,
            "norm_topk_prob": ffn.router.normalise,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [i for i, kind in enumerate(kinds) if not kind],
            "attention_bias": mixer.bias,
            "use_sliding_window": mixer.window is not None,
            "sliding_window": mixer.window,
            "rope_parameters": write_rope(rope),
        }


def dense_layers(keys: Keys, n_layers: int) -> set[int]:
    """Those named, and those between every ``decoder_sparse_step``."""
    named = keys.take("mlp_only_layers", None)
    if named is None:
        named = []
    if not isinstance(named, list) or any(type(i) is not int for i in named):
        raise keys.refused("mlp_only_layers", named, "a list of numbers of layers")
    step = keys.size("decoder_sparse_step", 1, most=DEEPEST)
    return {i for i in range(n_layers) if i in named or (i + 1) % step}
