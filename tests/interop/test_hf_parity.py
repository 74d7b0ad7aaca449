"""Each family against `transformers`: same logits, same bits on the way back, nothing ignored.

Their models compute norms, rotary angles and softmax in float32 whatever their dtype, all but
GPT-2. So float32 is compared with their code as it is, and float64 with `torch.float32` replaced
in their modules: then nothing but the formulas is left to differ.
"""

import importlib
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DiffLlamaConfig,
    DiffLlamaForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from llmtutor.interop.hf import (
    config_from_hf,
    family_of,
    load_hf,
    save_hf,
    state_from_hf,
    state_to_hf,
)
from llmtutor.interop.hf.families import plain
from llmtutor.interop.hf.keys import HARMLESS
from llmtutor.layers.attention.cache import WindowCache
from llmtutor.layers.positions import LinearScaling
from llmtutor.model.presets import build, preset

VOCAB, SEQ = 61, 24
IDS = torch.randint(VOCAB, (2, SEQ), generator=torch.Generator().manual_seed(0))
PLAIN = {"attn_implementation": "eager", "experts_implementation": "eager"}
"""Their code as it is written, not a kernel of it."""
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
MODELS = {
    "deepseek_v2": (DeepseekV2Config, DeepseekV2ForCausalLM),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM),
    "gpt2": (GPT2Config, GPT2LMHeadModel),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "gemma3_text": (Gemma3TextConfig, Gemma3ForCausalLM),
    "gpt_oss": (GptOssConfig, GptOssForCausalLM),
    "mixtral": (MixtralConfig, MixtralForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "qwen3_next": (Qwen3NextConfig, Qwen3NextForCausalLM),
    "diffllama": (DiffLlamaConfig, DiffLlamaForCausalLM),
    "mamba": (MambaConfig, MambaForCausalLM),
}
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
GPT2 = {"vocab_size": VOCAB, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 4, **TOKENS}
SMALL = {
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    **TOKENS,
}
EXPERTS = {"moe_intermediate_size": 14}
GEMMA = {**SMALL, "head_dim": 8, "sliding_window": 5}
OSS = {**GEMMA, "num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False}
MAMBA = {"vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2, **TOKENS}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
DEEPSEEK = {
    **SMALL,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "q_lora_rank": 10,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 10,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}

NEXT = {
    **SMALL,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 20,
}


def rope(options: dict, theta: float = 100.0) -> dict:
    return {"rope_parameters": {"rope_theta": theta, **options}}


CASES = {
    "gpt2": ("gpt2", GPT2),
    "gpt2, one layer, untied, other activation, width and eps": (
        "gpt2",
        {
            **GPT2,
            "n_layer": 1,
            "n_inner": 30,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-2,
            "tie_word_embeddings": False,
        },
    ),
    "llama": ("llama", SMALL),
    "llama, one layer, one kv head, wide heads, tied, base": (
        "llama",
        {
            **SMALL,
            "num_hidden_layers": 1,
            "num_key_value_heads": 1,
            "head_dim": 10,
            "rms_norm_eps": 1e-2,
            "tie_word_embeddings": True,
            **rope({"rope_type": "default"}, 300.0),
        },
    ),
    "llama, all biases, geglu, as many kv heads": (
        "llama",
        {
            **SMALL,
            "num_key_value_heads": 4,
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_act": "gelu",
        },
    ),
    "llama, linear": ("llama", {**SMALL, **rope({"rope_type": "linear", "factor": 4.0})}),
    "llama, llama3": ("llama", {**SMALL, **rope(LLAMA3)}),
    "llama, yarn": ("llama", {**SMALL, **rope(YARN)}),
    "llama, yarn, its own factor of attention and ramp": (
        "llama",
        {
            **SMALL,
            **rope({**YARN, "attention_factor": 1.5, "beta_fast": 3.0, "beta_slow": 0.5}),
        },
    ),
    "llama, yarn, mscale, not truncated": (
        "llama",
        {
            **SMALL,
            **rope(
                {
                    **YARN,
                    "beta_slow": 0.5,
                    "mscale": 0.7,
                    "mscale_all_dim": 1.3,
                    "truncate": False,
                }
            ),
        },
    ),
    "llama, yarn without a factor": ("llama", {**SMALL, **rope({**YARN, "factor": None})}),
    "mistral, window": ("mistral", {**SMALL, "sliding_window": 5}),
    "mistral, no window, heads that do not divide": (
        "mistral",
        {**SMALL, "sliding_window": None, "num_attention_heads": 5, "num_key_value_heads": 1},
    ),
    "qwen2": ("qwen2", SMALL),
    "qwen2, window in the upper layers": (
        "qwen2",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
        },
    ),
    "qwen2, layer types, wide heads, tied": (
        "qwen2",
        {
            **SMALL,
            "head_dim": 10,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
    ),
    "qwen3": ("qwen3", {**SMALL, "head_dim": 10, "tie_word_embeddings": True}),
    "qwen3, biases, window, yarn": (
        "qwen3",
        {
            **SMALL,
            "head_dim": 6,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            **rope(YARN),
        },
    ),
    "olmo2": ("olmo2", SMALL),
    "olmo2, one kv head, biases, linear": (
        "olmo2",
        {
            **SMALL,
            "num_key_value_heads": 1,
            "attention_bias": True,
            **rope({"rope_type": "linear", "factor": 2.0}),
        },
    ),
    "gemma2": ("gemma2", {**GEMMA, "num_hidden_layers": 3, "attn_logit_softcapping": 1.0}),
    "gemma2, no soft caps, biases, other scale, untied": (
        "gemma2",
        {
            **GEMMA,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "query_pre_attn_scalar": 6,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "gemma3": ("gemma3_text", {**GEMMA, "num_hidden_layers": 7}),
    "gemma3, yarn in full layers": (
        "gemma3_text",
        {
            **GEMMA,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"full_attention": {**YARN, "rope_theta": 100.0}},
        },
    ),
    "gemma3, soft cap, scaling in full layers, other pattern": (
        "gemma3_text",
        {
            **GEMMA,
            "num_key_value_heads": 1,
            "final_logit_softcapping": 2.0,
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
    ),
    "gpt_oss": ("gpt_oss", {**OSS, "num_hidden_layers": 4}),
    "gpt_oss, other windows, bounds, yarn, no biases of attention": (
        "gpt_oss",
        {
            **OSS,
            "attention_bias": False,
            "swiglu_limit": 0.5,
            "swiglu_alpha": 1.1,
            "num_experts_per_tok": 3,
            "layer_types": ["full_attention", "sliding_attention"],
            **rope({**YARN, "beta_slow": 0.5, "truncate": False}),
        },
    ),
    "mixtral": ("mixtral", SMALL),
    "mixtral, window, three of five experts, other base": (
        "mixtral",
        {
            **SMALL,
            "sliding_window": 5,
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "head_dim": 10,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
            **rope({"rope_type": "default"}, 300.0),
        },
    ),
    "qwen3 moe": (
        "qwen3_moe",
        {**SMALL, "head_dim": 10, "num_experts": 6, "num_experts_per_tok": 2, **EXPERTS},
    ),
    "qwen3 moe, some layers dense, window, biases, normalised": (
        "qwen3_moe",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "attention_bias": True,
            "norm_topk_prob": True,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            **EXPERTS,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    "qwen3 next": ("qwen3_next", {**NEXT, "full_attention_interval": 2}),
    "qwen3 next, as many heads, dense layers, biases, other pattern and turn": (
        "qwen3_next",
        {
            **NEXT,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "linear_attention", "full_attention"],
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 10,
            "linear_conv_kernel_dim": 2,
            "attention_bias": True,
            "norm_topk_prob": False,
            "mlp_only_layers": [1],
            "tie_word_embeddings": True,
            **rope({"rope_type": "default", "partial_rotary_factor": 0.5}, 300.0),
        },
    ),
    "diffllama": ("diffllama", {**SMALL, "num_hidden_layers": 3}),
    "diffllama, as many kv heads, wide, biases, eps, tied, yarn": (
        "diffllama",
        {
            **SMALL,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "attention_bias": True,
            "rms_norm_eps": 1e-2,
            "tie_word_embeddings": True,
            **rope(YARN),
        },
    ),
    "mamba": ("mamba", MAMBA),
    "mamba, other sizes, biases, untied": (
        "mamba",
        {
            **MAMBA,
            "max_position_embeddings": 40,
            "state_size": 3,
            "expand": 3,
            "conv_kernel": 2,
            "time_step_rank": 5,
            "use_bias": True,
            "use_conv_bias": False,
            "layer_norm_epsilon": 1e-2,
            "tie_word_embeddings": False,
        },
    ),
}

CASES |= {
    "deepseek_v2": ("deepseek_v2", DEEPSEEK),
    "deepseek_v2, groups, plain queries, yarn, tied": (
        "deepseek_v2",
        {
            **DEEPSEEK,
            "q_lora_rank": None,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 3.0,
            "rms_norm_eps": 1e-2,
            "tie_word_embeddings": True,
            **rope({**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}),
        },
    ),
    "deepseek_v2, all layers dense": ("deepseek_v2", {**DEEPSEEK, "first_k_dense_replace": 3}),
    "deepseek_v3": ("deepseek_v3", {**DEEPSEEK, "n_group": 4, "topk_group": 2}),
    "deepseek_v3, halves, no groups, plain queries, yarn": (
        "deepseek_v3",
        {
            **DEEPSEEK,
            "q_lora_rank": None,
            "first_k_dense_replace": 0,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.5,
            "rope_interleave": False,
            **rope({**YARN, "mscale": 1.0, "mscale_all_dim": 1.3}),
        },
    ),
}


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights, each large enough to move the logits; gains around 1, or 0 with an offset."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        gain = parameter.ndim == 1 and name.endswith("weight") and bool(parameter.detach().any())
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        size = 0.25 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        parameter.data = (gain + size * noise).to(parameter.dtype)
    for name, buffer in model.named_buffers():
        if name.endswith(("correction", "correction_bias")):  # which experts are chosen
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
    return model.eval()


class Double:
    """`torch` with float64 in the place of float32."""

    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)

    def tensor(self, value):
        return torch.tensor(value, dtype=torch.float64)


@pytest.fixture
def in_double(monkeypatch) -> None:
    for _, model in MODELS.values():
        module = importlib.import_module(model.__module__)
        if "gpt2" not in module.__name__:
            monkeypatch.setattr(module, "torch", Double())
    monkeypatch.setattr(transformers.modeling_rope_utils, "torch", Double())
    monkeypatch.setattr(Tensor, "float", Tensor.double)


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request) -> torch.dtype:
    if request.param == torch.float64:
        request.getfixturevalue("in_double")
    return request.param


def error(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    out = model(IDS)
    return out if torch.is_tensor(out) else out.logits


@torch.no_grad()
def in_pieces(ours: torch.nn.Module, theirs: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """Logits of a prompt, single tokens and chunks, each model with its own cache."""
    caches, past, got, want = ours.make_caches(len(IDS), SEQ), None, [], []
    for part in IDS.split([7, 1, 1, 4, 11], dim=1):
        got.append(ours(part, cache=caches))
        out = theirs(part, past_key_values=past, use_cache=True)
        past = out.past_key_values
        want.append(out.logits)
    return torch.cat(got, dim=1), torch.cat(want, dim=1)


def same_bits(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def theirs_of(case: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    kind, values = CASES[case]
    config, model = MODELS[kind]
    return shake(model._from_config(config(**values), **PLAIN).to(dtype))


@pytest.mark.parametrize("case", CASES)
def test_theirs_to_ours_and_back(case, dtype, tmp_path: Path) -> None:
    theirs = theirs_of(case, dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_hf(tmp_path / "theirs")
    expected = logits(theirs)
    assert ours.embedding.weight.dtype == dtype and expected.std() > 0.4  # no comparison of zeros
    assert error(logits(ours), expected) <= TOLERANCE[dtype]

    save_hf(ours, tmp_path / "back")
    kind = MODELS[family_of(ours.config).model_type][1]
    back, report = kind.from_pretrained(tmp_path / "back", output_loading_info=True, **PLAIN)
    assert not any(report.values()), report
    assert same_bits(back, theirs)
    assert error(logits(back), expected) <= (0 if kind is type(theirs) else TOLERANCE[dtype])
    again = load_hf(tmp_path / "back")
    assert again.config == ours.config and same_bits(again, ours)


SIZES = {"vocab_size": VOCAB, "max_seq_len": 32, "n_layers": 2, "d_model": 24, "n_heads": 4}
LLAMA = preset("llama-nano", **SIZES, d_ff=40)
QK_NORM = LLAMA.replace(qk_norm="rmsnorm", n_kv_heads=2, rope_pairing="interleaved")
OURS = {
    "gpt2, untied": preset("gpt2-nano", **SIZES, d_ff=40, tie_weights=False, ffn="gelu"),
    "llama, grouped": LLAMA.replace(n_kv_heads=2, rope_scaling=LinearScaling(2)),
    "pairs of neighbours": LLAMA.replace(rope_pairing="interleaved", bias=True),
    "pairs of neighbours, norms of each head": QK_NORM,
    "experts": LLAMA.replace(ffn="moe", n_experts=3, n_kv_heads=2, balance_loss=0.5),
    "pairs of neighbours, experts, first layer dense": QK_NORM.replace(
        blocks=(QK_NORM.blocks[0], QK_NORM.replace(ffn="moe", n_experts=3, d_ff=12).blocks[0])
    ),
    "pairs of neighbours, norms of all heads": QK_NORM.replace(
        qk_norm_over="heads", norm_placement="res-post"
    ),
    "diffllama, pairs of neighbours": LLAMA.replace(
        mixer="differential", gain=False, rope_pairing="interleaved"
    ),
}


@pytest.mark.parametrize("case", OURS)
def test_ours_to_theirs_and_back(case, dtype, tmp_path: Path) -> None:
    ours = shake(build(OURS[case]).to(dtype))
    save_hf(ours, tmp_path)
    kind = MODELS[family_of(ours.config).model_type][1]
    theirs, report = kind.from_pretrained(tmp_path, output_loading_info=True, **PLAIN)
    assert not any(report.values()), report
    expected = logits(ours)
    assert theirs.dtype == dtype and expected.std() > 0.4
    assert error(logits(theirs), expected) <= TOLERANCE[dtype]
    theirs.save_pretrained(tmp_path / "back")
    back = load_hf(tmp_path / "back")
    assert back.config == plain(ours.config)
    assert error(logits(back), expected) <= TOLERANCE[dtype]
    assert "neighbours" in case or same_bits(back, ours)


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma3", "diffllama", "mamba"])
def test_gradients_agree(case, tmp_path: Path, in_double) -> None:
    """Not only the values: the same step would be taken."""
    theirs = theirs_of(case, torch.float64)
    theirs.save_pretrained(tmp_path)
    ours = load_hf(tmp_path)
    theirs(IDS).logits.square().mean().backward()
    ours(IDS).square().mean().backward()
    grads = {name: p.grad for name, p in ours.named_parameters(remove_duplicate=False)}
    for name, grad in state_to_hf(grads, ours.config).items():
        expected = theirs.get_parameter(name).grad
        assert error(grad, expected) <= 1e-9 * max(1.0, float(expected.abs().max())), name


WINDOWS = [case for case in CASES if "sliding_window" in CASES[case][1] and "no window" not in case]


@pytest.mark.parametrize("case", WINDOWS)
@torch.no_grad()
def test_decoding_past_the_window_is_the_full_pass(case) -> None:
    kind, values = CASES[case]
    model = shake(build(config_from_hf(MODELS[kind][0](**values).to_dict())).double())
    full = logits(model)
    caches = model.make_caches(len(IDS), SEQ)
    assert any(isinstance(cache, WindowCache) for cache in caches)
    pieces = [model(part, cache=caches) for part in IDS.split([7, 1, 1, 4, 11], dim=1)]
    assert error(torch.cat(pieces, dim=1), full) <= 1e-12


@pytest.mark.parametrize("case", ["mixtral", "qwen3 moe"])
@torch.no_grad()
def test_experts_decode_alike_and_are_balanced_alike(case, tmp_path: Path) -> None:
    """A prompt, a chunk and single tokens, each with its cache; the loss of one layer."""
    theirs = theirs_of(case)
    theirs.save_pretrained(tmp_path)
    ours = load_hf(tmp_path)
    assert error(*in_pieces(ours, theirs)) <= 1e-5

    router_logits = theirs(IDS, output_router_logits=True).router_logits
    assert len(router_logits) == 2
    module = importlib.import_module(type(theirs).__module__)
    _, extras = ours(IDS, with_extras=True)
    for i, layer in enumerate(router_logits):
        n, k = (
            f(ours.blocks[i].ffn.config) for f in (lambda c: c.n_experts, lambda c: c.router.top_k)
        )
        loss = module.load_balancing_loss_func((layer,), num_experts=n, top_k=k)
        ours_loss = (
            extras.losses[f"blocks.{i}.ffn.balance"] / ours.blocks[i].ffn.config.balance_loss
        )
        assert float(loss) == pytest.approx(k * float(ours_loss), rel=1e-5)


@pytest.mark.parametrize("case", ["diffllama", "gpt_oss"])
@torch.no_grad()
def test_a_text_in_pieces_through_our_cache_is_their_full_pass(case, in_double) -> None:
    theirs = theirs_of(case, torch.float64)
    ours = build(config_from_hf(theirs.config.to_dict())).double()
    ours.load_state_dict(state_from_hf(theirs.state_dict(), ours.config))
    caches = ours.make_caches(len(IDS), SEQ)
    pieces = [ours(part, cache=caches) for part in IDS.split([7, 1, 1, 4, 11], dim=1)]
    assert error(torch.cat(pieces, dim=1), logits(theirs)) <= 1e-10


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("mamba")])
@torch.no_grad()
def test_a_state_is_carried_on_as_theirs(case, tmp_path: Path) -> None:
    """A prompt, then one token after another with both caches; ours takes pieces as well."""
    theirs = theirs_of(case)
    theirs.save_pretrained(tmp_path)
    ours = load_hf(tmp_path)
    caches, state, start = ours.make_caches(len(IDS), SEQ), None, 0
    for length in (7, *(SEQ - 7) * [1]):
        piece = IDS[:, start : start + length]
        out = theirs(piece, cache_params=state, use_cache=True)
        state, start = out.cache_params, start + length
        assert error(ours(piece, cache=caches), out.logits) <= 1e-5
    caches.reset()
    pieces = [ours(part, cache=caches) for part in IDS.split([7, 1, 1, 4, 11], dim=1)]
    assert error(torch.cat(pieces, dim=1), logits(theirs)) <= 1e-5


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("qwen3 next")])
def test_states_beside_a_cache_of_keys_are_carried_on_as_theirs(case, dtype, tmp_path) -> None:
    """Theirs also takes chunks after a prompt, so both read the same pieces."""
    theirs = theirs_of(case, dtype)
    theirs.save_pretrained(tmp_path)
    ours = load_hf(tmp_path)
    got, want = in_pieces(ours, theirs)
    assert error(got, want) <= TOLERANCE[dtype]
    assert error(got, logits(theirs)) <= TOLERANCE[dtype]


DEEPSEEKS = [case for case in CASES if case.startswith("deepseek")]


@pytest.mark.parametrize("case", DEEPSEEKS)
@torch.no_grad()
def test_a_latent_cache_gives_the_logits_of_the_library_and_of_its_cache(case, tmp_path) -> None:
    """A prompt at once, in pieces, and token by token: theirs decompresses, ours absorbs."""
    theirs = theirs_of(case)
    theirs.save_pretrained(tmp_path)
    ours = load_hf(tmp_path)
    got, want = in_pieces(ours, theirs)
    assert error(got, want) <= 2e-5 and error(got, logits(theirs)) <= 2e-5
    config = ours.config.blocks[0].mixer
    assert (
        ours.make_caches(len(IDS), SEQ).nbytes
        == len(IDS) * SEQ * 3 * (config.kv_rank + config.rope_dim) * 4
    )


def test_keys_and_values_of_other_heads_are_refused_by_name() -> None:
    theirs = theirs_of("deepseek_v2")
    state = state_to_hf(
        build(config := config_from_hf(theirs.config.to_dict())).state_dict(), config
    )
    name = "model.layers.0.self_attn.kv_b_proj.weight"
    state[name] = state[name][:-1]
    with pytest.raises(ValueError, match=r"kv_b_proj.weight has shape \(43, 8\).*key_up.*value_up"):
        state_from_hf(state, config)


@torch.no_grad()
def test_embeddings_of_gemma_are_scaled_with_a_rounded_factor() -> None:
    """In bfloat16 √24 is 4.90625; with all its digits every vector would be off by 0.1 %."""
    theirs = theirs_of("gemma3", torch.bfloat16)
    ours = build(config_from_hf(theirs.config.to_dict())).bfloat16()
    ours.embedding.weight.copy_(theirs.model.embed_tokens.weight)
    read: list[Tensor] = []
    ours.blocks[0].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    ours(IDS)
    assert torch.equal(read[0], theirs.model.embed_tokens(IDS))


HARMLESS_VALUES = {
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"), 0.7),
    "initializer_range": 0.5,
    "use_cache": False,
    "pretraining_tp": 2,
    "n_ctx": 7,
    "bos_token_id": 5,
    "eos_token_id": [6],
    "pad_token_id": 7,
    "output_hidden_states": True,
    "chunk_size_feed_forward": 3,
    "is_decoder": True,
    "max_length": 5,
    "problem_type": "regression",
    "summary_type": "first",
    "summary_use_proj": False,
    "summary_first_dropout": 0.9,
    "task_specific_params": {},
}


@pytest.mark.parametrize("case", ["gpt2", "llama", "qwen2", "gemma2", "gemma3", "olmo2", "mamba"])
def test_what_we_call_harmless_changes_no_logit(case) -> None:
    """Other values for all harmless keys, in evaluation mode: theirs and ours stay as they are."""
    kind, values = CASES[case]
    config, model = MODELS[kind]
    assert set(HARMLESS_VALUES) <= HARMLESS
    changed = config.from_dict({**values, **HARMLESS_VALUES})
    assert config_from_hf({"model_type": kind, **values, **HARMLESS_VALUES}) == (
        config_from_hf(config(**values).to_dict())
    )
    other = shake(model._from_config(changed, **PLAIN))
    assert torch.equal(logits(other), logits(theirs_of(case)))
