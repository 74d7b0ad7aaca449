"""Chapter 25, linear_attention: Qwen3-Next, gated DeltaNet with attention in every fourth layer."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import (
    ATTENTION,
    FULL,
    MLP,
    DecoderFamily,
    llama_parts,
    mlp_inside,
    read_types,
)
from llmtutor.interop.hf.experts import dense_and_sparse, without_experts
from llmtutor.interop.hf.family import Entry, of_kind
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.qwen3_moe import read_ffns, read_moe, write_ffns
from llmtutor.interop.hf.rope import Shape, read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import RopeConfig
from llmtutor.layers.recurrent.delta_net import DeltaNetConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

LINEAR, SHARED = "linear_attention", "shared_expert_intermediate_size"
PATTERN, FRACTION = 4, 0.25
"""Every fourth layer has attention, and a quarter of its heads turns."""


class Qwen3Next(DecoderFamily):
    """Norms with a gain of 1 + weight, experts beside a shared one, two kinds of mixers."""

    model_type: ClassVar[str] = "qwen3_next"
    architecture: ClassVar[str] = "Qwen3NextForCausalLM"
    default_head_dim: ClassVar[int | None] = 256
    default_kv_heads: ClassVar[int | None] = 2
    nulls: ClassVar[tuple[str, ...]] = ()
    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "input_layernorm",
        **ATTENTION,
        **dict.fromkeys(("mixer.gate", "mixer.write", "mixer.fading", "mixer.fading.decay"), ""),
        "mixer.conv": "linear_attn.conv1d",
        "mixer.norm": "linear_attn.norm",
        "norm_2": "post_attention_layernorm",
        **MLP,
        "ffn.router.linear": "mlp.gate",
        **mlp_inside("experts.*", "experts.*"),
        **mlp_inside("shared", "shared_expert"),
        "ffn.shared_gate": "mlp.shared_expert_gate",
    }

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        keys.only({"use_sliding_window": False})
        decoder = self.read_decoder(keys)
        norm = RMSNormConfig(decoder.eps, offset=True)
        attention = AttentionConfig(
            **decoder.heads,
            position=_read_rope(keys, decoder.shape),
            qk_norm=norm,
            bias=keys.flag("attention_bias", False),
            gate=True,
        )
        interval = keys.size("full_attention_interval", PATTERN)
        usual = [LINEAR if (i + 1) % interval else FULL for i in range(decoder.n_layers)]
        types, recurrent = read_types(keys, (LINEAR, FULL), usual), _read_delta(keys, decoder.eps)
        mixers: list[MixerConfig] = [recurrent if t == LINEAR else attention for t in types]
        experts = read_moe(keys, decoder.ffn, 512, 512, top_k=10, normalise=True)
        shared = replace(decoder.ffn, d_ff=keys.size(SHARED, 512))
        experts = replace(experts, shared=shared, shared_gate=True)
        pairs = zip(mixers, read_ffns(keys, decoder, experts), strict=True)
        config = decoder.model([BlockConfig(mixer, ffn, norm) for mixer, ffn in pairs])
        return replace(config, norm=norm)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys.

        Raises:
            ValueError: parts of another kind; no layer of one of the two kinds, or none of experts,
                of which the file could not say then what they would be.
        """
        kinds = [block.mixer.kind for block in config.blocks]
        full = _first(kinds, AttentionConfig.kind)
        single = without_experts(config)
        mixer, _, _, rope = llama_parts(single, full)
        _, moe = dense_and_sparse(config)
        shared = moe and moe.shared
        first = replace(single, blocks=(single.blocks[full], *single.blocks[1:]))
        return {
            **self.write_decoder(first),
            **write_ffns(config),
            **({SHARED: shared.d_ff} if isinstance(shared, GatedMLPConfig) else {}),
            "attention_bias": mixer.bias,
            "layer_types": [FULL if kind == AttentionConfig.kind else LINEAR for kind in kinds],
            **_write_delta(config, _first(kinds, DeltaNetConfig.kind)),
            "rope_parameters": {
                **write_rope(replace(rope, fraction=1.0)),
                "partial_rotary_factor": rope.fraction,
            },
        }

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """Every tensor; several projections of ours lie side by side in one of theirs."""
        joined = [entry for i in range(config.n_layers) for entry in self._joined(config, i)]
        taken = {name for entry in joined for name in entry.ours}
        yield from (entry for entry in super().entries(config) if entry.ours[0] not in taken)
        yield from joined

    def _joined(self, config: ModelConfig, i: int) -> Iterator[Entry]:
        """Those of the mixer of block ``i`` that have other names or forms than ``inside`` says."""
        mixer, theirs = config.blocks[i].mixer, f"{self.prefix}{self.layer}.{i}."

        def ours(*names: str) -> tuple[str, ...]:
            return tuple(f"blocks.{i}.mixer.{name}" for name in names)

        if isinstance(mixer, AttentionConfig):
            for kind in ("weight", "bias") if mixer.bias else ("weight",):
                both = ours(f"query.{kind}", f"gate.{kind}")
                yield Entry(both, f"{theirs}self_attn.q_proj.{kind}", heads=mixer.n_heads)
        elif isinstance(mixer, DeltaNetConfig):
            head_dim, value_dim = mixer.widths(config.d_model)
            shared = mixer.value_heads // mixer.n_heads
            rows = head_dim, head_dim, shared * value_dim, shared * value_dim
            layer = f"{theirs}linear_attn."
            wide = ours(*(f"{name}.weight" for name in ("query", "key", "value", "gate")))
            yield Entry(wide, f"{layer}in_proj_qkvz.weight", rows=rows, heads=mixer.n_heads)
            narrow = ours("write.weight", "fading.decay.weight")
            yield Entry(narrow, f"{layer}in_proj_ba.weight", heads=mixer.n_heads)
            yield Entry(ours("output.weight"), f"{layer}out_proj.weight")
            yield Entry(ours("fading.log_rate"), f"{layer}A_log")
            yield Entry(ours("fading.bias"), f"{layer}dt_bias")


def _first(kinds: list[str], kind: str) -> int:
    """The first layer of a kind.

    Raises:
        ValueError: there is none, and a file could not say what it would be.
    """
    if kind not in kinds:
        raise ValueError(f"blocks: one at least must have a mixer of kind {kind!r}, none has")
    return kinds.index(kind)


def _read_rope(keys: Keys, shape: Shape) -> RopeConfig:
    """RoPE of the part of a head that turns, which stands inside or outside of the other keys."""
    fraction = keys.number("partial_rotary_factor", FRACTION, most=1)
    inside = keys.left.get("rope_parameters")
    if isinstance(inside, Mapping):
        options = Keys(inside, keys.where, "rope_parameters")
        fraction = options.number("partial_rotary_factor", fraction, most=1)
        keys.left["rope_parameters"] = options.left
    turned = fraction * shape.head_dim
    if turned != int(turned) or turned % 2:
        raise keys.refused("partial_rotary_factor", fraction, "an even part of head_dim")
    rope = read_rope(keys, Shape(shape.max_seq_len, int(turned)))
    return replace(rope, fraction=fraction)


def _read_delta(keys: Keys, eps: float) -> DeltaNetConfig:
    """The recurrent layers."""
    n_heads = keys.size("linear_num_key_heads", 16)
    value_heads = keys.size("linear_num_value_heads", 32)
    if value_heads % n_heads:
        expected = f"a multiple of linear_num_key_heads = {n_heads}"
        raise keys.refused("linear_num_value_heads", value_heads, expected)
    return DeltaNetConfig(
        n_heads,
        value_heads,
        keys.size("linear_key_head_dim", 128),
        keys.size("linear_value_head_dim", 128),
        keys.size("linear_conv_kernel_dim", 4),
        eps=eps,
    )


def _write_delta(config: ModelConfig, i: int) -> dict[str, Any]:
    """The keys for the recurrent layer of block ``i``."""
    mixer = of_kind(DeltaNetConfig, config.blocks[i].mixer, f"blocks[{i}].mixer")
    head_dim, value_dim = mixer.widths(config.d_model)
    return {
        "linear_num_key_heads": mixer.n_heads,
        "linear_num_value_heads": mixer.value_heads,
        "linear_key_head_dim": head_dim,
        "linear_value_head_dim": value_dim,
        "linear_conv_kernel_dim": mixer.conv_width,
    }
