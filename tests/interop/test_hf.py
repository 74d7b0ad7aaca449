"""Weights go to `transformers` and come back: same logits, same bits, nothing ignored."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    modeling_rope_utils,
)
from transformers.models.llama import modeling_llama

from llmtutor.interop.hf import load_hf, save_hf, state_from_hf, state_to_hf
from llmtutor.interop.hf_config import HARMLESS, config_from_hf, config_to_hf
from llmtutor.layers.positions import LinearScaling, NtkScaling, YarnScaling
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, build, preset

VOCAB, SEQ = 97, 40
IDS = torch.randint(VOCAB, (3, SEQ), generator=torch.Generator().manual_seed(0))
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
TOKENS = {"bos_token_id": None, "eos_token_id": None}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}

GPT2 = {"vocab_size": VOCAB, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 4, **TOKENS}
LLAMA = {
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    **TOKENS,
}
THEIRS = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2)),
    "gpt2, wide and untied, other activation and eps": (
        GPT2LMHeadModel,
        GPT2Config(
            **GPT2,
            n_inner=100,
            activation_function="relu",
            layer_norm_epsilon=1e-2,
            tie_word_embeddings=False,
        ),
    ),
    "llama": (LlamaForCausalLM, LlamaConfig(**LLAMA)),
    "llama, tied, other base and eps": (
        LlamaForCausalLM,
        LlamaConfig(
            **LLAMA,
            rms_norm_eps=1e-2,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 300.0},
        ),
    ),
    "llama, linear scaling": (
        LlamaForCausalLM,
        LlamaConfig(
            **LLAMA,
            rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        ),
    ),
    "llama, yarn": (
        LlamaForCausalLM,
        LlamaConfig(**LLAMA, rope_parameters={**YARN, "rope_theta": 1e4}),
    ),
    **{
        f"llama, {n} key and value heads": (
            LlamaForCausalLM,
            LlamaConfig(
                **{**LLAMA, "num_attention_heads": 8, "hidden_size": 64}, num_key_value_heads=n
            ),
        )
        for n in (1, 2, 4, 8)
    },
    "llama, geglu": (LlamaForCausalLM, LlamaConfig(**LLAMA, hidden_act="gelu")),
}


def shake(model: torch.nn.Module) -> None:
    """Random weights, each large enough to move the logits, which stay near 1; gains around 1."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        gain = parameter.ndim == 1 and name.endswith("weight")
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        size = 0.25 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        parameter.data = (gain + size * noise).to(parameter.dtype)


class Double:
    """`torch` with float64 in the place of float32."""

    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def in_double(monkeypatch) -> None:
    """Their Llama rounds norms and angles to float32 whatever its dtype; here it does not.

    The float32 cases run their code as it is.
    """
    monkeypatch.setattr(modeling_llama, "torch", Double())
    monkeypatch.setattr(modeling_rope_utils, "torch", Double())
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
    model.eval()
    out = model(IDS)
    return out if torch.is_tensor(out) else out.logits


def bits(model: torch.nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


def same_bits(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = bits(a), bits(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("case", THEIRS)
def test_theirs_to_ours_and_back(case, dtype, tmp_path) -> None:
    kind, config = THEIRS[case]
    theirs = kind(config).to(dtype)
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_hf(tmp_path / "theirs")
    expected = logits(theirs)
    assert ours.embedding.weight.dtype == dtype
    assert expected.std() > 0.5  # not a comparison of zeros
    assert error(logits(ours), expected) <= TOLERANCE[dtype]

    save_hf(ours, tmp_path / "back")
    back, report = kind.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    assert same_bits(back, theirs)
    assert torch.equal(logits(back), expected)


OURS = {
    "gpt2": preset("gpt2-nano", vocab_size=VOCAB),
    "gpt2 untied": preset("gpt2-nano", vocab_size=VOCAB, tie_weights=False, ffn="gelu"),
    "llama": preset("llama-nano", vocab_size=VOCAB),
    "llama tied": preset("llama-nano", vocab_size=VOCAB, tie_weights=True, rope_base=500.0),
    "llama linear": preset("llama-nano", vocab_size=VOCAB, rope_scaling=LinearScaling(2)),
    "llama gqa": preset("llama-nano", vocab_size=VOCAB, mixer="gqa", n_kv_heads=2),
    "llama yarn": preset("llama-nano", vocab_size=VOCAB, rope_scaling=YarnScaling(8, 32, 16, 2)),
}


@pytest.mark.parametrize("case", OURS)
def test_ours_to_theirs_and_back(case, dtype, tmp_path) -> None:
    ours = build(OURS[case]).to(dtype)
    shake(ours)
    save_hf(ours, tmp_path)
    kind = GPT2LMHeadModel if "gpt2" in case else LlamaForCausalLM
    theirs, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.dtype == dtype
    expected = logits(ours)
    assert expected.std() > 0.5
    assert error(logits(theirs), expected) <= TOLERANCE[dtype]
    theirs.save_pretrained(tmp_path / "back")
    back = load_hf(tmp_path / "back")
    assert back.config == ours.config
    assert same_bits(back, ours)


def test_gradients_agree(tmp_path, in_double) -> None:
    """Not only the values: the same step would be taken."""
    for case in ("gpt2", "llama", "llama, 2 key and value heads"):
        kind, config = THEIRS[case]
        theirs = kind(config).double().eval()
        shake(theirs)
        theirs.save_pretrained(tmp_path / case)
        ours = load_hf(tmp_path / case)
        theirs(IDS).logits.square().mean().backward()
        ours(IDS).square().mean().backward()
        grads = {name: p.grad for name, p in ours.named_parameters(remove_duplicate=False)}
        for name, grad in state_to_hf(grads, ours.config).items():
            expected = theirs.get_parameter(name).grad
            assert error(grad, expected) <= 1e-6 * max(1.0, float(expected.abs().max())), name


@pytest.mark.parametrize("case", ["llama", "llama gqa"])
def test_neighbour_pairs_are_saved_as_halves(case, tmp_path, in_double) -> None:
    ours = build(OURS[case].replace(rope_pairing="interleaved")).double()
    shake(ours)
    save_hf(ours, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)
    assert error(logits(theirs), logits(ours)) <= 1e-6
    back = load_hf(tmp_path)
    assert back.config.rope_pairing == "half"
    assert error(logits(back), logits(ours)) <= 1e-6


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_their_configuration(name) -> None:
    config = PRESETS[name]
    if name.startswith("baseline"):
        with pytest.raises(ValueError, match=r"position must be learned .* got 'sinusoidal'"):
            config_to_hf(config)
    else:
        assert config_from_hf(config_to_hf(config)) == config


def test_gpt2_preset_is_their_default() -> None:
    assert config_from_hf(GPT2Config().to_dict()) == PRESETS["gpt2"]
    llama = config_from_hf(LlamaConfig().to_dict())  # Llama 7B
    assert (llama.n_layers, llama.d_model, llama.d_ff, llama.eps) == (32, 4096, 11008, 1e-6)


# Files --------------------------------------------------------------------------------------------


def saved(folder: Path, case: str = "gpt2", **save) -> GPT2LMHeadModel:
    kind, config = THEIRS[case]
    theirs = kind(config)
    shake(theirs)
    theirs.save_pretrained(folder, **save)
    return theirs


def test_shards(tmp_path) -> None:
    theirs = saved(tmp_path, "llama", max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert error(logits(load_hf(tmp_path)), logits(theirs)) <= 1e-5


def test_names_and_masks_of_older_files(tmp_path) -> None:
    """GPT-2 as first published: no prefix, masks among the weights, the tied matrix twice."""
    theirs = saved(tmp_path)
    path = tmp_path / "model.safetensors"
    state = {n.removeprefix("transformer."): w for n, w in load_file(path).items()}
    state |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.ones(1)}
    save_file({**state, "lm_head.weight": state["wte.weight"].clone()}, path)
    assert error(logits(load_hf(tmp_path)), logits(theirs)) <= 1e-5
    save_file({**state, "lm_head.weight": state["wte.weight"] + 1}, path)
    with pytest.raises(ValueError, match=r"tie_word_embeddings is true but lm_head.weight is not"):
        load_hf(tmp_path)


def test_older_rope_keys() -> None:
    old = {**LlamaConfig(**LLAMA).to_dict(), "rope_theta": 500.0}
    del old["rope_parameters"]
    old["rope_scaling"] = {"type": "linear", "factor": 2.0}
    config = config_from_hf(old)
    assert (config.rope_base, config.rope_scaling) == (500.0, LinearScaling(2.0))
    assert config_from_hf({**old, "rope_scaling": None}).rope_scaling is None


def test_dtype_is_kept_or_converted(tmp_path) -> None:
    model = build(OURS["llama"]).bfloat16()
    save_hf(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"
    assert same_bits(load_hf(tmp_path), model)
    wide = load_hf(tmp_path, dtype=torch.float32)
    assert torch.equal(wide.head.weight, model.head.weight.float())


def test_missing_and_unexpected_names_are_said(tmp_path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    state["transformer.h.0.attn.c_atn.weight"] = state.pop("transformer.h.0.attn.c_attn.weight")
    save_file(state, path)
    with pytest.raises(ValueError) as raised:
        load_hf(tmp_path)
    assert "missing transformer.h.0.attn.c_attn.weight" in str(raised.value)
    assert "unexpected transformer.h.0.attn.c_atn.weight" in str(raised.value)


def test_shapes_must_fit(tmp_path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_positions": 63}), "utf-8")
    with pytest.raises(ValueError, match=r"position.weight has shape \(64, 48\).* asks for \(63,"):
        load_hf(tmp_path)


def test_pickles_and_damaged_files_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_hf(tmp_path)
    saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load_hf(tmp_path)
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is a pickle"):
        load_hf(tmp_path)


def test_an_index_cannot_lead_out_of_the_folder(tmp_path) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"transformer.wte.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(ValueError, match="names a file outside its folder"):
        load_hf(tmp_path)


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch) -> None:
    model = build(OURS["llama"])
    save_hf(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(state, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("llmtutor.interop.hf.save_file", full)
    shake(model)
    with pytest.raises(OSError, match="no space left"):
        save_hf(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_neither_has_is_not_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="position must be"):
        save_hf(build(preset("baseline-nano")), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# What is refused ----------------------------------------------------------------------------------

REFUSED = {
    "scale_attn_weights": ("gpt2", False, "only True"),
    "scale_attn_by_inverse_layer_idx": ("gpt2", True, "only False"),
    "reorder_and_upcast_attn": ("gpt2", True, "only False"),
    "add_cross_attention": ("gpt2", True, "only False"),
    "is_encoder_decoder": ("gpt2", True, "only False"),
    "activation_function": ("gpt2", "gelu_fast", "gelu, gelu_new"),
    "n_experts": ("gpt2", 8, "nothing of that name"),
    "attention_bias": ("llama", True, "only False"),
    "mlp_bias": ("llama", True, "only False"),
    "head_dim": ("llama", 16, "only hidden_size / num_attention_heads"),
    "hidden_act": ("llama", "mish", "gelu, relu, sigmoid, silu"),
    "quantization_config": ("llama", {"bits": 4}, "nothing of that name"),
    "sliding_window": ("llama", 128, "nothing of that name"),
    "layer_norm_epsilon": ("llama", 1e-5, "nothing of that name"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_features_that_we_do_not_have_are_refused_by_name(key) -> None:
    kind, value, message = REFUSED[key]
    config = GPT2Config(**GPT2) if kind == "gpt2" else LlamaConfig(**LLAMA)
    with pytest.raises(ValueError, match=rf"config.json has {key} = .*{message}"):
        config_from_hf({**config.to_dict(), key: value})


ROPES = {
    "dynamic": ({"rope_type": "dynamic", "factor": 2.0}, "rope_type = 'dynamic'"),
    "llama3": ({"rope_type": "llama3", "factor": 2.0}, "rope_type = 'llama3'"),
    "longrope": ({"rope_type": "longrope", "factor": 2.0}, "rope_type = 'longrope'"),
    "partial": ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "other attention factor": ({**YARN, "attention_factor": 2.0}, "attention_factor = 2.0"),
    "mscale": ({**YARN, "mscale": 0.7}, "mscale of rope_parameters = 0.7"),
    "not truncated": ({**YARN, "truncate": False}, "truncate = False"),
    "no factor": ({"rope_type": "linear"}, "lacks factor"),
    "factor without a type": ({"factor": 2.0}, "factor of rope_parameters = 2.0"),
}


@pytest.mark.parametrize("case", ROPES)
def test_rope_options_that_we_do_not_have_are_refused_by_name(case) -> None:
    options, message = ROPES[case]
    values = {**LlamaConfig(**LLAMA).to_dict(), "rope_parameters": {"rope_theta": 1e4, **options}}
    with pytest.raises(ValueError) as raised:
        config_from_hf(values)
    assert message in str(raised.value)


def test_other_types_and_missing_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model_type must be gpt2 or llama, got 'mistral'"):
        config_from_hf({**LlamaConfig(**LLAMA).to_dict(), "model_type": "mistral"})
    with pytest.raises(ValueError, match="n_heads = 4, n_kv_heads = 3"):
        config_from_hf({**LlamaConfig(**LLAMA).to_dict(), "num_key_value_heads": 3})
    with pytest.raises(ValueError, match="a gpt2 of Hugging Face has mixer = 'mha' only"):
        config_to_hf(preset("gpt2-nano", mixer="gqa", n_kv_heads=2))
    with pytest.raises(ValueError, match=r"config.json of a gpt2 lacks n_layer"):
        config_from_hf({k: v for k, v in GPT2Config(**GPT2).to_dict().items() if k != "n_layer"})


@pytest.mark.parametrize("case", THEIRS)
def test_what_we_call_harmless_changes_no_logit(case) -> None:
    """Other values for all harmless keys that their class knows, in evaluation mode."""
    kind, config = THEIRS[case]
    other = {
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"), 0.7),
        "initializer_range": 0.5,
        "use_cache": False,
        "pretraining_tp": 2,
        "n_ctx": 7,
        "bos_token_id": 5,
        "eos_token_id": 6,
        "pad_token_id": 7,
        "output_hidden_states": True,
        "chunk_size_feed_forward": 3,
        "problem_type": "regression",
        "summary_type": "first",
        "summary_use_proj": False,
        "summary_first_dropout": 0.9,
        "task_specific_params": {},
    }
    assert set(other) <= HARMLESS
    known = config.to_dict()
    changed = {**known, **{key: value for key, value in other.items() if key in known}}
    first, second = kind(config), kind(type(config).from_dict(changed))
    shake(first)
    shake(second)
    assert config_from_hf(changed) == config_from_hf(known)
    assert torch.equal(logits(first), logits(second))


WRONG = {
    "mixer": None,  # of two both can be written
    "norm_placement": "post",
    "qk_norm": True,
    "norm": "layernorm",
    "bias": True,
    "rope_fraction": 0.5,
    "ffn": "relu2",
    "rope_scaling": NtkScaling(2.0, 64),
    "position": "alibi",
}


@pytest.mark.parametrize("field", [field for field, value in WRONG.items() if value is not None])
def test_our_features_that_they_do_not_have_are_refused_by_name(field) -> None:
    with pytest.raises(ValueError, match=field):
        config_to_hf(preset("llama-nano").replace(**{field: WRONG[field]}))


def test_each_field_is_written_or_refused() -> None:
    """A field that is neither would be lost on the way; ``init`` is about the past of a model."""
    base: ModelConfig = PRESETS["llama-nano"]
    written = base.replace(
        vocab_size=5, max_seq_len=6, n_layers=1, d_model=64, n_heads=8, d_ff=24, ffn="geglu"
    ).replace(rope_base=7.0, rope_scaling=LinearScaling(3), tie_weights=True, eps=1e-3)
    written = written.replace(mixer="gqa", n_kv_heads=2)
    assert config_from_hf(config_to_hf(written)) == written
    before, after = base.to_dict(), written.to_dict()
    changed = {field for field in before if before[field] != after[field]}
    assert changed | set(WRONG) == set(before) - {"init", "rope_pairing"}


def test_state_keeps_its_own_memory() -> None:
    """What goes out are tensors of their own layout: editing a file's tensors is no hidden link."""
    model = build(OURS["gpt2"])
    state = state_to_hf(model.state_dict(), model.config)
    back = state_from_hf(state, model.config)
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    assert all(value.is_contiguous() for value in [*state.values(), *back.values()])
