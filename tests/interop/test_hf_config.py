"""Published `config.json` files, every kind of value at each of their keys, and what is refused."""

import copy
import json
import math
from dataclasses import replace

import pytest
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    DiffLlamaConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from llmtutor.interop.hf import FAMILIES, config_from_hf, config_to_hf, family_of
from llmtutor.interop.hf.keys import LONGEST, WIDEST
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import (
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
    RopeConfig,
    YarnScaling,
)
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, preset
from llmtutor.model.published import PUBLISHED

SILU = {"hidden_act": "silu", "attention_dropout": 0.0, "initializer_range": 0.02}
GELU = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "attention_dropout": 0.0}
LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
SUMMARY = {
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
}
DEEPSEEK = {
    "attention_bias": False,
    **SILU,
    "aux_loss_alpha": 0.001,
    "ep_size": 1,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_layer_freq": 1,
    "pretraining_tp": 1,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "seq_aux": True,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 128,
}


def stretched(mscale: float) -> dict:
    return {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": mscale,
        "mscale_all_dim": mscale,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    }


HUB = {
    "gpt2-xl": {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 1600,
        "n_head": 25,
        "n_layer": 48,
        "n_positions": 1024,
        "n_special": 0,
        "output_past": True,
        "predict_special_tokens": True,
        "resid_pdrop": 0.1,
        **SUMMARY,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    },
    "llama3.2-1b": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        **SILU,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "head_dim": 64,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": LLAMA3,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0",
        "use_cache": True,
        "vocab_size": 128256,
    },
    "SmolLM2-135M": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        **SILU,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "vocab_size": 49152,
    },
    "mistral-7b": {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    },
    "qwen2.5-0.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        **SILU,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 24,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "qwen3-0.6b": {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        **SILU,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "max_window_layers": 28,
        "model_type": "qwen3",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "gemma2-2b": {
        "architectures": ["Gemma2ForCausalLM"],
        **GELU,
        "attn_logit_softcapping": 50.0,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 2304,
        "initializer_range": 0.02,
        "intermediate_size": 9216,
        "max_position_embeddings": 8192,
        "model_type": "gemma2",
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "torch_dtype": "float32",
        "transformers_version": "4.42.4",
        "use_cache": True,
        "vocab_size": 256000,
    },
    "gemma3-1b": {
        "architectures": ["Gemma3ForCausalLM"],
        **GELU,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": [1, 106],
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_size": 1152,
        "initializer_range": 0.02,
        "intermediate_size": 6912,
        "max_position_embeddings": 32768,
        "model_type": "gemma3_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "use_cache": True,
        "vocab_size": 262144,
    },
    "olmo2-1b": {
        "architectures": ["Olmo2ForCausalLM"],
        "attention_bias": False,
        **SILU,
        "eos_token_id": 100257,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "model_type": "olmo2",
        "num_attention_heads": 16,
        "num_hidden_layers": 16,
        "num_key_value_heads": 16,
        "pad_token_id": 100277,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.47.0",
        "use_cache": False,
        "vocab_size": 100352,
    },
    "gpt-oss-20b": {  # without its quantization_config: the experts are in 4 bits there
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": 200002,
        "experts_per_token": 4,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2880,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 2880,
        "layer_types": 12 * ["sliding_attention", "full_attention"],
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 24,
        "num_key_value_heads": 8,
        "num_local_experts": 32,
        "output_router_logits": False,
        "pad_token_id": 199999,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "transformers_version": "4.55.0.dev0",
        "use_cache": True,
        "vocab_size": 201088,
    },
    "mixtral-8x7b": {
        "architectures": ["MixtralForCausalLM"],
        **SILU,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mixtral",
        "num_attention_heads": 32,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "output_router_logits": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.36.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    },
    "qwen3-30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        **SILU,
        "bos_token_id": 151643,
        "decoder_sparse_step": 1,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 40960,
        "max_window_layers": 48,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "output_router_logits": False,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "qwen3-next-80b-a3b": {
        "architectures": ["Qwen3NextForCausalLM"],
        "attention_bias": False,
        **SILU,
        "bos_token_id": 151643,
        "decoder_sparse_step": 1,
        "eos_token_id": 151645,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_size": 2048,
        "intermediate_size": 5120,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262144,
        "mlp_only_layers": [],
        "model_type": "qwen3_next",
        "moe_intermediate_size": 512,
        "norm_topk_prob": True,
        "num_attention_heads": 16,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "num_hidden_layers": 48,
        "num_key_value_heads": 2,
        "output_router_logits": False,
        "partial_rotary_factor": 0.25,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000000,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 512,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.57.0.dev0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "mamba-130m": {
        "architectures": ["MambaForCausalLM"],
        "bos_token_id": 0,
        "conv_kernel": 4,
        "d_inner": 1536,
        "d_model": 768,
        "eos_token_id": 0,
        "expand": 2,
        "fused_add_norm": True,
        "hidden_act": "silu",
        "hidden_size": 768,
        "initializer_range": 0.1,
        "intermediate_size": 1536,
        "layer_norm_epsilon": 1e-05,
        "model_type": "mamba",
        "n_layer": 24,
        "num_hidden_layers": 24,
        "pad_token_id": 0,
        "pad_vocab_size_multiple": 8,
        "rescale_prenorm_residual": False,
        "residual_in_fp32": True,
        "rms_norm": True,
        "ssm_cfg": {},
        "state_size": 16,
        "time_step_floor": 0.0001,
        "time_step_init_scheme": "random",
        "time_step_max": 0.1,
        "time_step_min": 0.001,
        "time_step_rank": 48,
        "time_step_scale": 1.0,
        "torch_dtype": "float32",
        "transformers_version": "4.39.0.dev0",
        "use_bias": False,
        "use_cache": True,
        "use_conv_bias": True,
        "vocab_size": 50280,
    },
    "deepseek-v2": {
        "architectures": ["DeepseekV2ForCausalLM"],
        **DEEPSEEK,
        "bos_token_id": 100000,
        "eos_token_id": 100001,
        "first_k_dense_replace": 1,
        "hidden_size": 5120,
        "intermediate_size": 12288,
        "model_type": "deepseek_v2",
        "moe_intermediate_size": 1536,
        "n_group": 8,
        "n_routed_experts": 160,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_attention_heads": 128,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 60,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "rope_scaling": stretched(0.707),
        "routed_scaling_factor": 16.0,
        "scoring_func": "softmax",
        "topk_group": 3,
        "topk_method": "group_limited_greedy",
        "vocab_size": 102400,
    },
    "deepseek-v2-lite": {
        "architectures": ["DeepseekV2ForCausalLM"],
        **DEEPSEEK,
        "bos_token_id": 100000,
        "eos_token_id": 100001,
        "first_k_dense_replace": 1,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "model_type": "deepseek_v2",
        "moe_intermediate_size": 1408,
        "n_group": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 27,
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "rope_scaling": stretched(0.707),
        "routed_scaling_factor": 1.0,
        "scoring_func": "softmax",
        "topk_group": 1,
        "topk_method": "greedy",
        "vocab_size": 102400,
    },
    "deepseek-v3": {
        "architectures": ["DeepseekV3ForCausalLM"],
        **DEEPSEEK,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "first_k_dense_replace": 3,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "model_type": "deepseek_v3",
        "moe_intermediate_size": 2048,
        "n_group": 8,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 61,
        "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1,
        "q_lora_rank": 1536,
        "rope_scaling": stretched(1.0),
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "topk_group": 4,
        "topk_method": "noaux_tc",
        "vocab_size": 129280,
    },
}
"""As they lie beside the weights on the hub; DeepSeek-V3's without its quantisation to 8 bits."""
MEANT = {
    **PUBLISHED,
    "SmolLM2-135M": preset(
        "llama",
        vocab_size=49152,
        max_seq_len=8192,
        n_layers=30,
        d_model=576,
        n_heads=9,
        n_kv_heads=3,
        d_ff=1536,
        rope_base=100_000.0,
        tie_weights=True,
    ),
}
THEIRS = {
    "gpt2": GPT2Config,
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "olmo2": Olmo2Config,
    "gemma2": Gemma2Config,
    "gemma3_text": Gemma3TextConfig,
    "diffllama": DiffLlamaConfig,
    "mamba": MambaConfig,
    "mixtral": MixtralConfig,
    "qwen3_moe": Qwen3MoeConfig,
    "deepseek_v2": DeepseekV2Config,
    "deepseek_v3": DeepseekV3Config,
    "gpt_oss": GptOssConfig,
    "qwen3_next": Qwen3NextConfig,
}


def yarn(**options) -> dict:
    basic = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    return {"rope_parameters": {"rope_theta": 1e4, **basic, **options}}


@pytest.mark.parametrize("name", HUB)
def test_published_files_are_the_presets_also_as_the_library_writes_them_anew(name) -> None:
    values = HUB[name]
    assert config_from_hf(values) == MEANT[name]
    anew = THEIRS[values["model_type"]](**values).to_dict()
    assert config_from_hf(json.loads(json.dumps(anew))) == MEANT[name]


@pytest.mark.parametrize("name", [*PRESETS, *PUBLISHED])
def test_presets_keep_their_configuration(name) -> None:
    config = preset(name)
    if name.startswith("baseline"):
        with pytest.raises(
            ValueError, match=r"nearest, .* position = 'learned' only, got 'sinusoidal'"
        ):
            config_to_hf(config)
    else:
        assert config_from_hf(config_to_hf(config)) == config


# Each key, and every kind of value ----------------------------------------------------------------

BASES = {
    **HUB,
    # Each is built, if without memory: sixteen experts are as good as 256.
    **{name: {**HUB[name], "n_routed_experts": 16} for name in HUB if "deepseek" in name},
    "linear": {
        **HUB["mistral-7b"],
        "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "yarn": {
        **HUB["olmo2-1b"],
        "rope_scaling": {
            **yarn(beta_fast=32, beta_slow=1, truncate=True)["rope_parameters"],
            "attention_factor": 1.1,
            "rope_theta": 500000.0,
        },
    },
    "mscale": {
        **{k: v for k, v in HUB["qwen3-0.6b"].items() if not k.startswith("rope_")},
        **yarn(mscale=0.7, mscale_all_dim=1.3),
        "use_sliding_window": True,
        "sliding_window": 4096,
        "max_window_layers": 20,
    },
    "gemma3, as the library writes it": Gemma3TextConfig(**HUB["gemma3-1b"]).to_dict(),
}
VALUES = ["x", [], [1], None, {}, {"a": 1}, True, False, -1, 0, 0.5, 10**30, 10**400, 1e308, 4]
VALUES += [math.nan, math.inf, ABSENT := object()]


def paths(values: dict, at: tuple = ()):
    for key, value in values.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from paths(value, (*at, key))


def put(values: dict, path: tuple, value: object) -> dict:
    values = copy.deepcopy(values)
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    if value is ABSENT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return values


@pytest.mark.parametrize("base", BASES)
def test_any_value_at_any_key_is_read_as_the_library_does_or_refused_by_name(base) -> None:
    """The same model, or the one that the library makes of it, or an error with file and key."""
    original = json.loads(json.dumps(BASES[base]))
    theirs = THEIRS[original["model_type"]]
    config = config_from_hf(original)
    wrong = []
    for path in paths(original):
        for value in VALUES:
            changed = put(original, path, value)
            try:
                got = config_from_hf(changed, where="folder/config.json")
            except ValueError as error:
                if "folder/config.json" not in str(error) or path[-1] not in str(error):
                    wrong.append((path, value, str(error)))
                continue
            if got != config and not _agrees(theirs, changed, got):
                wrong.append((path, value, "read as something else"))
    assert wrong == []


def _agrees(theirs, values: dict, got: ModelConfig) -> bool:
    """Their class reads it alike; it wants some numbers as 4.0 and not as 4."""
    ends = "_eps", "_epsilon", "_softcapping", "_scaling_factor"
    numbers = {k: float(v) for k, v in values.items() if type(v) is int and k.endswith(ends)}
    return config_from_hf(theirs(**{**values, **numbers}).to_dict()) == got


def test_all_sizes_at_their_largest_are_still_a_configuration() -> None:
    """Each below its bound: no count of theirs overflows, and one more is refused."""
    widths = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), WIDEST)
    widths |= dict.fromkeys(("num_attention_heads", "num_key_value_heads", "head_dim"), WIDEST)
    values = {**HUB["qwen3-0.6b"], **widths, "max_position_embeddings": LONGEST}
    assert config_from_hf(values).d_model == WIDEST
    for key in (*widths, "max_position_embeddings"):
        with pytest.raises(ValueError, match=f"has {key} = {values[key] + 1}"):
            config_from_hf({**values, key: values[key] + 1})


# What is refused ----------------------------------------------------------------------------------

REFUSED = {
    "scale_attn_weights": ("gpt2-xl", False, "expected true, which is all that we have"),
    "scale_attn_by_inverse_layer_idx": ("gpt2-xl", True, "expected false"),
    "reorder_and_upcast_attn": ("gpt2-xl", True, "expected false"),
    "add_cross_attention": ("gpt2-xl", True, "expected false"),
    "pruned_heads": ("gpt2-xl", {"0": [1]}, "expected {}"),
    "is_encoder_decoder": ("llama3.2-1b", True, "expected false"),
    "activation_function": ("gpt2-xl", "gelu_fast", "gelu, gelu_new"),
    "n_experts": ("gpt2-xl", 8, "no key of that name"),
    "auto_map": ("llama3.2-1b", {"AutoModel": "x.Y"}, "no key of that name"),
    "hidden_act": ("llama3.2-1b", "mish", "gelu, gelu_new, gelu_pytorch_tanh, relu, sigmoid, silu"),
    "quantization_config": ("mistral-7b", {"bits": 4}, "expected null"),
    "layer_norm_epsilon": ("llama3.2-1b", 1e-5, "no key of that name"),
    "layer_types": ("mistral-7b", ["full_attention"] * 32, "no key of that name"),
    "use_mrope": ("qwen2.5-0.5b", True, "expected false"),
    "use_bidirectional_attention": ("gemma3-1b", True, "expected false"),
    "attn_logit_softcapping": ("gemma3-1b", 50.0, "expected null"),
    "sliding_window_pattern": ("gemma3-1b", 0, "a whole number from 1"),
    "sliding_window_size": ("gemma2-2b", 512, "expected 4096"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_features_that_we_do_not_have_are_refused_by_name(key) -> None:
    name, value, message = REFUSED[key]
    with pytest.raises(ValueError) as raised:
        config_from_hf({**HUB[name], key: value})
    assert f"config.json has {key} = " in str(raised.value) and message in str(raised.value)


ROPES = {
    "dynamic": ({"rope_type": "dynamic", "factor": 2.0}, "up to max_position_embeddings tokens"),
    "longrope": ({"rope_type": "longrope"}, "change with the length of the text"),
    "proportional": ({"rope_type": "proportional"}, "expected default, linear, llama3, yarn"),
    "partial": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor of rope_parameters = 0.5"),
    "no factor": ({"rope_type": "linear"}, "rope_parameters of config.json lacks factor"),
    "factor without a type": ({"factor": 2.0}, "factor of rope_parameters = 2.0"),
    "two types": ({"type": "yarn", "rope_type": "default"}, "type of rope_parameters = 'yarn'"),
    "a ramp turned round": (
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4},
        "original_max_position_embeddings of rope_parameters = 4",
    ),
    "yarn without a factor, longer than the model": (
        {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 2**20},
        "expected at most max_position_embeddings = 4096",
    ),
}


@pytest.mark.parametrize("case", ROPES)
def test_rope_options_that_we_do_not_have_are_refused_by_name(case) -> None:
    options, message = ROPES[case]
    with pytest.raises(ValueError) as raised:
        config_from_hf({**HUB["olmo2-1b"], "rope_parameters": options})
    assert message in str(raised.value)


def test_what_is_said_twice_must_be_the_same() -> None:
    """The library would take one of the two, and mostly not the newer one."""
    written = LlamaConfig(**HUB["llama3.2-1b"]).to_dict()
    plain = {**written, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    added = {"rope_type": "linear", "factor": 4.0}
    with pytest.raises(ValueError, match=r"config.json has rope_scaling = .*keep one of the two"):
        config_from_hf({**plain, "rope_scaling": added})
    with pytest.raises(ValueError, match=r"config.json has rope_scaling = "):
        config_from_hf({**plain, "rope_scaling": {"type": "default"}})  # whose base is 10000
    assert (
        config_from_hf({**written, "rope_scaling": {**LLAMA3, "rope_theta": 500000.0}})
        == (PUBLISHED["llama3.2-1b"])
    )
    with pytest.raises(ValueError, match=r"rope_theta of rope_parameters = 500000.0; expected the"):
        config_from_hf({**written, "rope_theta": 10000.0})
    gemma = Gemma3TextConfig(**HUB["gemma3-1b"]).to_dict()
    with pytest.raises(ValueError, match=r"config.json has rope_scaling = .*keep one of the two"):
        config_from_hf({**gemma, "rope_scaling": added})
    with pytest.raises(ValueError, match="sliding_window_pattern = 5; expected what layer_types"):
        config_from_hf({**gemma, "sliding_window_pattern": 5})
    with pytest.raises(ValueError, match="hidden_act = 'gelu'; expected what hidden_activation"):
        config_from_hf({**HUB["gemma2-2b"], "hidden_act": "gelu"})


def test_other_types_and_missing_sizes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'gemma3'; expected .*; its text part alone is gemma3_text"
    ):
        config_from_hf({**HUB["gemma3-1b"], "model_type": "gemma3"})
    with pytest.raises(ValueError, match="model_type = None; expected gpt2, llama"):
        config_from_hf({})
    with pytest.raises(ValueError, match=r"did you mean 'olmo2'\?"):
        config_from_hf({"model_type": "olmo3"})
    for name, values in HUB.items():
        for key in ("vocab_size", "n_layer", "num_hidden_layers", "hidden_size"):
            if key in values and (key, values["model_type"]) != ("n_layer", "mamba"):
                rest = {k: v for k, v in values.items() if k != key}
                with pytest.raises(ValueError, match=f"config.json lacks {key}"):
                    config_from_hf(rest)
        assert name


def test_an_odd_number_of_heads_makes_no_differential_ones() -> None:
    values = config_to_hf(LLAMA.replace(mixer="differential", gain=False))
    for key, changes in {
        "num_key_value_heads": {"num_key_value_heads": 1},
        "num_attention_heads": {"num_attention_heads": 1, "num_key_value_heads": None},
    }.items():
        with pytest.raises(ValueError, match=f"{key} = 1; expected an even number"):
            config_from_hf({**values, **changes})


def test_older_rope_keys() -> None:
    old = {**HUB["mistral-7b"], "rope_theta": 500.0}
    for scaling, ours in (
        ({"type": "linear", "factor": 2.0}, LinearScaling(2.0)),
        ({"type": "yarn", "factor": 2.0, "finetuned": None}, YarnScaling(2.0, 32768)),
        (None, None),
        ({}, None),
    ):
        config = config_from_hf({**old, "rope_scaling": scaling})
        assert config.blocks[0].mixer.position == RopeConfig(500.0, scaling=ours)


# Ours to theirs -----------------------------------------------------------------------------------

LLAMA = preset("llama-nano")
OURS = {
    "llama": {},
    "mistral": {"window": 8},
    "qwen3": {"qk_norm": "rmsnorm", "head_dim": 20},
    "qwen2": {"mixer": replace(LLAMA.blocks[0].mixer, bias=True, output_bias=False)},
    "olmo2": {"qk_norm": "rmsnorm", "qk_norm_over": "heads", "norm_placement": "res-post"},
    "diffllama": {"mixer": "differential", "gain": False},
}


def test_the_simplest_family_that_can_say_it_is_taken() -> None:
    for name, changes in OURS.items():
        config = LLAMA.replace(**changes)
        assert family_of(config).model_type == name
        assert config_from_hf(config_to_hf(config)) == config
    mixed = replace(LLAMA, blocks=(*LLAMA.replace(window=8).blocks[:3], LLAMA.blocks[0]))
    with pytest.raises(ValueError, match=r"llama.*has blocks\[0\].mixer.window = None only, got 8"):
        config_to_hf(mixed)  # only with biases, or norms of q and k, has a family such layers
    assert family_of(mixed.replace(qk_norm="rmsnorm")).model_type == "qwen3"
    assert list(FAMILIES) == list(THEIRS)


UNSAYABLE = {
    "mixer": "differential",  # with a gain in the norm of each head
    "norm_placement": "post",
    "norm": "layernorm",
    "rope_fraction": 0.5,
    "ffn": "relu2",
    "rope_scaling": NtkScaling(2.0, 64),
    "position": "alibi",
    "softcap": 5.0,
    "sinks": True,
    "gate": True,
    "scale": 0.3,
    "logit_softcap": 5.0,
    "embedding_scale": 2.0,
    "qk_norm": RMSNormConfig(1e-3),  # another eps than the block's
    "offset": True,
}


@pytest.mark.parametrize("field", UNSAYABLE)
def test_what_no_family_can_say_is_refused_by_name(field) -> None:
    with pytest.raises(ValueError, match="no family of Hugging Face that we write") as raised:
        config_to_hf(LLAMA.replace(**{field: UNSAYABLE[field]}))
    assert field.removeprefix("rope_") in str(raised.value)


def test_each_field_is_written_or_refused() -> None:
    """Whatever is changed, what comes back is equal, or there is an error: nothing is lost."""
    shaped = {"vocab_size": 5, "max_seq_len": 6, "n_layers": 1, "d_model": 64, "d_ff": 24}
    heads = {"n_heads": 8, "n_kv_heads": 2, "head_dim": 10, "tie_weights": True, "eps": 1e-3}
    for scaling in (
        None,
        LinearScaling(3),
        Llama3Scaling(2.0, 16, 1.5, 3.0),
        YarnScaling(2.0, 64, 16, 2, 1.25, truncate=False),
    ):
        config = LLAMA.replace(**shaped, **heads, ffn="geglu_tanh", rope_scaling=scaling)
        assert config_from_hf(config_to_hf(config)) == config
