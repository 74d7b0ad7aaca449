"""Chapter 18, moe: the Qwen 3 with experts, such as 30B-A3B (Yang et al. 2025)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import Decoder, DecoderFamily, llama_parts, mlp_inside
from llmtutor.interop.hf.experts import dense_and_sparse, mixture, read_experts, without_experts
from llmtutor.interop.hf.family import of_kind
from llmtutor.interop.hf.keys import DEEPEST, Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import FeedForwardConfig, GatedMLPConfig
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
        **mlp_inside("experts.*", "experts.*"),
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
        experts = read_moe(keys, decoder.ffn, 768, 128, top_k=8, normalise=False)
        norm = RMSNormConfig(decoder.eps)
        ffns = read_ffns(keys, decoder, experts)
        return decoder.model([BlockConfig(mixer, ffn, norm) for ffn in ffns])

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        single = without_experts(config)
        mixer, _, _, rope = llama_parts(single, 0)
        return {
            **self.write_decoder(single),
            **write_ffns(config),
            "attention_bias": mixer.bias,
            "use_sliding_window": mixer.window is not None,
            "sliding_window": mixer.window,
            "rope_parameters": write_rope(rope),
        }


def read_moe(
    keys: Keys, dense: GatedMLPConfig, width: int, n_experts: int, *, top_k: int, normalise: bool
) -> MoEConfig:
    """Experts ``width`` wide, and so on; what is given here is for keys that are absent."""
    return read_experts(
        keys,
        replace(dense, d_ff=keys.size("moe_intermediate_size", width)),
        "num_local_experts" if "num_local_experts" in keys else "num_experts",
        n_experts,
        top_k,
        normalise=keys.flag("norm_topk_prob", normalise),
    )


def read_ffns(keys: Keys, decoder: Decoder, experts: MoEConfig) -> list[FeedForwardConfig]:
    """Of each layer: dense in those named, and between every ``decoder_sparse_step``."""
    named = keys.take("mlp_only_layers", None)
    if named is None:
        named = []
    if not isinstance(named, list) or any(type(i) is not int for i in named):
        raise keys.refused("mlp_only_layers", named, "a list of numbers of layers")
    step = keys.size("decoder_sparse_step", 1, most=DEEPEST)
    layers = range(decoder.n_layers)
    return [decoder.ffn if i in named or (i + 1) % step else experts for i in layers]


def write_ffns(config: ModelConfig) -> dict[str, Any]:
    """The keys that ``read_moe`` and ``read_ffns`` take.

    Raises:
        ValueError: no layer with experts, or parts of another kind.
    """
    dense, moe = dense_and_sparse(config)
    moe = moe or mixture(config, 0)  # refuses, and says what is there
    layers = enumerate(config.blocks)
    return {
        "intermediate_size": dense.d_ff,
        "moe_intermediate_size": of_kind(GatedMLPConfig, moe.expert, "an expert").d_ff,
        "num_experts": moe.n_experts,
        "num_experts_per_tok": moe.router.top_k,
        "norm_topk_prob": moe.router.normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, block in layers if not isinstance(block.ffn, MoEConfig)],
    }
