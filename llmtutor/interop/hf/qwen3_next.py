"""Chapter 25, linear_attention: Qwen3-Next, gated DeltaNet with attention in every fourth layer."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import ATTENTION, FULL, MLP, DecoderFamily, llama_parts
from llmtutor.interop.hf.experts import mixture, read_experts, without_experts
from llmtutor.interop.hf.family import Entry
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.qwen3_moe import dense_layers
from llmtutor.interop.hf.rope import Shape, read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.moe import MoEConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import RopeConfig
from llmtutor.layers.recurrent.delta_net import DeltaNetConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

LINEAR = "linear_attention"
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
        "ffn.experts.*.gate": "mlp.experts.*.gate_proj",
        "ffn.experts.*.up": "mlp.experts.*.up_proj",
        "ffn.experts.*.down": "mlp.experts.*.down_proj",
        "ffn.shared.gate": "mlp.shared_expert.gate_proj",
        "ffn.shared.up": "mlp.shared_expert.up_proj",
        "ffn.shared.down": "mlp.shared_expert.down_proj",
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
        types, recurrent = _types(keys, decoder.n_layers), _read_delta(keys, decoder.eps)
        mixers: list[MixerConfig] = [recurrent if t == LINEAR else attention for t in types]
        experts = read_experts(
            keys,
            replace(decoder.ffn, d_ff=keys.size("moe_intermediate_size", 512)),
            "num_local_experts" if "num_local_experts" in keys else "num_experts",
            default=512,
            top_k=10,
            normalise=keys.flag("norm_topk_prob", True),
        )
        shared = replace(decoder.ffn, d_ff=keys.size("shared_expert_intermediate_size", 512))
        experts = replace(experts, shared=shared, shared_gate=True)
        dense = dense_layers(keys, decoder.n_layers)
        ffns = [decoder.ffn if i in dense else experts for i in range(decoder.n_layers)]
        pairs = zip(mixers, ffns, strict=True)
        config = decoder.model([BlockConfig(mixer, ffn, norm) for mixer, ffn in pairs])
        return replace(config, norm=norm)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys.

        Raises:
            ValueError: parts of another kind; no layer of one of the two kinds, or none of experts,
                of which the file could not say then what they would be.
        """
        kinds = [block.mixer.kind for block in config.blocks]
        has_experts = [isinstance(block.ffn, MoEConfig) for block in config.blocks]
        full = _first(kinds, AttentionConfig.kind)
        moe = mixture(config, has_experts.index(True) if any(has_experts) else 0)
        single = without_experts(config)
        mixer, _, _, rope = llama_parts(single, full)
        dense = has_experts.index(False) if False in has_experts else full
        widths = {
            "intermediate_size": single.blocks[dense].ffn,
            "moe_intermediate_size": moe.expert,
            "shared_expert_intermediate_size": moe.shared,
        }
        first = replace(single, blocks=(single.blocks[full], *single.blocks[1:]))
        return {
            **self.write_decoder(first),
            **{key: part.d_ff for key, part in widths.items() if isinstance(part, GatedMLPConfig)},
            "num_experts": moe.n_experts,
            "num_experts_per_tok": moe.router.top_k,
            "norm_topk_prob": moe.router.normalise,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [i for i, experts in enumerate(has_experts) if not experts],
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


def _types(keys: Keys, n_layers: int) -> list[str]:
    """The kind of each layer, as the file lists them or by its interval."""
    interval = keys.size("full_attention_interval", PATTERN)
    usual = [LINEAR if (i + 1) % interval else FULL for i in range(n_layers)]
    types = keys.take("layer_types", None)
    types = usual if types is None else types
    if not isinstance(types, list) or any(kind not in (LINEAR, FULL) for kind in types):
        raise keys.refused("layer_types", types, f"a list of {LINEAR} and {FULL}")
    if len(types) != n_layers:
        expected = f"as many as num_hidden_layers = {n_layers}, it has {len(types)}"
        raise keys.refused("layer_types", types, expected)
    return types


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
    mixer = config.blocks[i].mixer
    assert isinstance(mixer, DeltaNetConfig)
    head_dim, value_dim = mixer.widths(config.d_model)
    return {
        "linear_num_key_heads": mixer.n_heads,
        "linear_num_value_heads": mixer.value_heads,
        "linear_key_head_dim": head_dim,
        "linear_value_head_dim": value_dim,
        "linear_conv_kernel_dim": mixer.conv_width,
    }
