"""Chapter 15, mla: DeepSeek-V2 (DeepSeek-AI 2024), latent attention with experts above it.

Where YaRN stretches RoPE, ``mscale_all_dim`` scales all scores, also those of the components that
do not turn: by ``(0.1 · mscale_all_dim · ln(factor) + 1)²``. That is our ``scale``.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import GATES, MLP, mlp_inside, name_of
from llmtutor.interop.hf.experts import dense_and_sparse, read_experts
from llmtutor.interop.hf.family import Entry, Family, of_kind
from llmtutor.interop.hf.keys import DEEPEST, LONGEST, Keys
from llmtutor.interop.hf.rope import Shape, read_rope, write_rope
from llmtutor.layers.attention.latent import LatentAttentionConfig
from llmtutor.layers.ffn import FeedForwardConfig, GatedMLPConfig
from llmtutor.layers.moe import MoEConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import RopeConfig, YarnScaling
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

LATENT_NORM = RMSNormConfig(1e-6)
"""The library's, whatever the file says of other norms."""
LARGEST = 1e9
"""Factors beyond this are noise in a file."""
TRAINING = (
    *("aux_loss_alpha", "seq_aux", "ep_size", "auto_map", "num_nextn_predict_layers"),
    *("head_dim", "qk_head_dim"),  # the library sets both from the other sizes
)
"""Keys of the published files that change no logit."""
EXPERTS = (
    *("moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"),
    *("routed_scaling_factor", "norm_topk_prob", "scoring_func", "topk_method", "n_group"),
    "topk_group",
)
"""Keys that say nothing where all layers are dense."""


class DeepseekV2(Family):
    """Dense first layers, then experts with shared ones among them; latent attention in all."""

    model_type: ClassVar[str] = "deepseek_v2"
    architecture: ClassVar[str] = "DeepseekV2ForCausalLM"
    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "input_layernorm",
        "mixer.query_down": "self_attn.q_a_proj",
        "mixer.query_norm": "self_attn.q_a_layernorm",
        "mixer.query": "self_attn.q_proj",
        "mixer.latent": "self_attn.kv_a_proj_with_mqa",
        "mixer.latent_norm": "self_attn.kv_a_layernorm",
        "mixer.rope_key": "self_attn.kv_a_proj_with_mqa",
        "mixer.key_up": "self_attn.kv_b_proj",
        "mixer.value_up": "self_attn.kv_b_proj",
        "mixer.output": "self_attn.o_proj",
        "norm_2": "post_attention_layernorm",
        **MLP,
        "ffn.router.linear": "mlp.gate",
        **mlp_inside("experts.*", "experts.*"),
        **mlp_inside("shared", "shared_experts"),
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "first_k_dense_replace": 0,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "moe_intermediate_size": 1407,
        "num_experts_per_tok": None,
        "routed_scaling_factor": 1.0,
    }
    """The library's, of keys that are absent."""

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        for key in TRAINING:
            keys.take(key, None)
        keys.only({"attention_bias": False, "mlp_bias": False, "moe_layer_freq": 1})
        d_model, n_layers = keys.size("hidden_size"), keys.size("num_hidden_layers", most=DEEPEST)
        max_seq_len = keys.size("max_position_embeddings", most=LONGEST)
        dense = GatedMLPConfig(
            keys.size("intermediate_size"), keys.name("hidden_act", GATES, "silu")
        )
        norm = RMSNormConfig(keys.number("rms_norm_eps", 1e-6))
        mixer = self._read_mixer(keys, d_model, max_seq_len)
        first = keys.size(
            "first_k_dense_replace", self.defaults["first_k_dense_replace"], least=0, most=DEEPEST
        )
        ffns: list[FeedForwardConfig] = [dense for _ in range(min(first, n_layers))]
        if first < n_layers:
            ffns += (n_layers - first) * [self._read_experts(keys, dense)]
        else:
            for key in EXPERTS:
                keys.take(key, None)
        return ModelConfig(
            vocab_size=keys.size("vocab_size"),
            max_seq_len=max_seq_len,
            d_model=d_model,
            blocks=tuple(BlockConfig(mixer, ffn, norm) for ffn in ffns),
            norm=norm,
            tie_weights=keys.flag("tie_word_embeddings", False),
        )

    def _read_mixer(self, keys: Keys, d_model: int, max_seq_len: int) -> LatentAttentionConfig:
        n_heads = keys.size("num_attention_heads")
        if d_model % n_heads:
            expected = f"a divisor of hidden_size = {d_model}, as the library wants it"
            raise keys.refused("num_attention_heads", n_heads, expected)
        kv_heads = keys.size_or_none("num_key_value_heads", None)
        if kv_heads not in (None, n_heads):
            expected = f"num_attention_heads = {n_heads}: each head makes keys of its own"
            raise keys.refused("num_key_value_heads", kv_heads, expected)
        nope, rope = keys.size("qk_nope_head_dim", 128), keys.size("qk_rope_head_dim", 64)
        if rope % 2:
            raise keys.refused("qk_rope_head_dim", rope, "an even number: RoPE turns pairs")
        factor = _score_factor(keys)
        turning = read_rope(keys, Shape(max_seq_len, rope))
        return LatentAttentionConfig(
            n_heads,
            kv_rank=keys.size("kv_lora_rank", 512),
            q_rank=keys.size_or_none("q_lora_rank", 1536),
            nope_dim=nope,
            rope_dim=rope,
            v_dim=keys.size("v_head_dim", 128),
            position=replace(turning, pairing=self._read_pairing(keys)),
            latent_norm=LATENT_NORM,
            scale=None if factor == 1 else factor * (nope + rope) ** -0.5,
        )

    def _read_pairing(self, keys: Keys) -> Any:
        return "interleaved"

    def _read_experts(self, keys: Keys, dense: GatedMLPConfig) -> MoEConfig:
        width = keys.size("moe_intermediate_size", self.defaults["moe_intermediate_size"])
        shared = keys.size("n_shared_experts", self.defaults["n_shared_experts"])
        ffn = read_experts(
            keys,
            replace(dense, d_ff=width),
            "n_routed_experts",
            self.defaults["n_routed_experts"],
            self.defaults["num_experts_per_tok"],
            routed_scale=keys.number(
                "routed_scaling_factor", self.defaults["routed_scaling_factor"]
            ),
            **self._read_router(keys),
        )
        return replace(ffn, shared=replace(dense, d_ff=shared * width))

    def _read_router(self, keys: Keys) -> dict[str, Any]:
        """How experts are chosen; without groups the file may name some all the same."""
        keys.only({"norm_topk_prob": False, "scoring_func": "softmax"})
        method = keys.take("topk_method", "greedy")
        groups, best = (keys.size_or_none(key, None) for key in ("n_group", "topk_group"))
        if method == "greedy":
            return {"score": "softmax", "normalise": False}
        if method != "group_limited_greedy":
            raise keys.refused("topk_method", method, "greedy or group_limited_greedy")
        if groups is None or best is None:
            raise keys.refused("n_group", groups, "a number, and topk_group too")
        chosen = {"n_groups": groups, "top_groups": best, "group_score": "max"}
        return {"score": "softmax", "normalise": False, **chosen}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        dense, sparse = dense_and_sparse(config)
        mixer = of_kind(LatentAttentionConfig, config.blocks[0].mixer, "blocks[0].mixer")
        rope = of_kind(RopeConfig, mixer.position, "blocks[0].mixer.position")
        norm = of_kind(RMSNormConfig, config.blocks[0].norm, "blocks[0].norm")
        w = mixer.widths(config.d_model)
        first = next((i for i, b in enumerate(config.blocks) if isinstance(b.ffn, MoEConfig)), None)
        return {
            **self.write_sizes(config),
            "num_attention_heads": mixer.n_heads,
            "num_key_value_heads": mixer.n_heads,
            "kv_lora_rank": w.kv_rank,
            "q_lora_rank": w.q_rank,
            "qk_nope_head_dim": w.nope,
            "qk_rope_head_dim": w.rope,
            "v_head_dim": w.v,
            "intermediate_size": dense.d_ff,
            "hidden_act": name_of(dense.activation, GATES),
            "rms_norm_eps": norm.eps,
            "first_k_dense_replace": config.n_layers if first is None else first,
            "rope_parameters": _write_rope(rope, mixer.scale, w.nope + w.rope),
            **self._write_experts(sparse),
        }

    def _write_experts(self, ffn: MoEConfig | None) -> dict[str, Any]:
        if ffn is None:
            return {}
        expert = of_kind(GatedMLPConfig, ffn.expert, "an expert")
        shared = of_kind(GatedMLPConfig, ffn.shared, "the shared expert")
        if shared.d_ff % expert.d_ff:
            raise ValueError(
                f"the shared expert must be a multiple of the others' d_ff = {expert.d_ff} wide, "
                f"got {shared.d_ff}"
            )
        return {
            "moe_intermediate_size": expert.d_ff,
            "n_routed_experts": ffn.n_experts,
            "n_shared_experts": shared.d_ff // expert.d_ff,
            "num_experts_per_tok": ffn.router.top_k,
            "routed_scaling_factor": ffn.router.routed_scale,
            **self._write_router(ffn),
        }

    def _write_router(self, ffn: MoEConfig) -> dict[str, Any]:
        router = ffn.router
        if router.n_groups == 1:
            return {"topk_method": "greedy"}
        groups = {"n_group": router.n_groups, "topk_group": router.top_groups}
        return {"topk_method": "group_limited_greedy", **groups}

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """As theirs: the latent above the turned key, and key and value of each head together."""
        for entry in super().entries(config):
            (name,) = entry.ours
            words = name.split(".")
            if words[0] != "blocks" or words[2] != "mixer":
                yield entry
                continue
            mixer: Any = config.blocks[int(words[1])].mixer
            w = mixer.widths(config.d_model)
            if words[3] == "latent":
                both = (name, name.replace("latent", "rope_key"))
                yield Entry(both, entry.theirs, rows=(w.kv_rank, w.rope))
            elif words[3] == "key_up":
                both = (name, name.replace("key_up", "value_up"))
                yield Entry(both, entry.theirs, heads=mixer.n_heads, rows=(w.nope, w.v))
            elif words[3] == "query" and w.q_rank:
                yield Entry((name,), entry.theirs.replace("q_proj", "q_b_proj"))
            elif words[3] not in ("rope_key", "value_up"):
                yield entry


def _score_factor(keys: Keys) -> float:
    """What ``mscale_all_dim`` makes of all scores; the keys stay for who reads RoPE."""
    for name in ("rope_parameters", "rope_scaling"):
        options = keys.left.get(name)
        if isinstance(options, Mapping) and options.get("mscale_all_dim"):
            inner = Keys(options, keys.where, name)
            factor = inner.number("factor", most=LARGEST)
            size = inner.number("mscale_all_dim", most=LARGEST)
            return (0.1 * size * math.log(max(factor, 1)) + 1) ** 2
    return 1.0


def _write_rope(rope: RopeConfig, scale: float | None, width: int) -> dict[str, object]:
    written, scaling = write_rope(rope), rope.scaling
    if scale is not None and isinstance(scaling, YarnScaling) and scaling.factor > 1:
        root = math.sqrt(scale * math.sqrt(width))
        # Rounded, so that what is read again is the same number.
        written["mscale_all_dim"] = round((root - 1) / (0.1 * math.log(scaling.factor)), 12)
        written["attention_factor"] = float(scaling.attention_factor)
    return written
