"""Every part by its kind: to JSON and back, what its fields build, errors by name."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.extras import split_extras
from llmtutor.layers.ffn import FeedForwardConfig, GatedMLPConfig, MLPConfig
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.moe import RouterConfig
from llmtutor.layers.norms import LayerNormConfig, NormConfig, RMSNormConfig
from llmtutor.layers.part import Part, Site, field_names
from llmtutor.layers.positions import (
    AlibiConfig,
    AttentionPositionConfig,
    EmbeddingPositionConfig,
    LinearScaling,
    NoPositionConfig,
    RopeConfig,
    RopeScaling,
    YarnScaling,
)
from llmtutor.layers.registry import PARTS, kinds, part_from_dict

SITE = Site(d_model=16, max_seq_len=8, n_layers=2)
LONGER = {"factor": 4.0, "original_max_seq_len": 8}
ATTENTION = {
    "n_heads": 2,
    "n_kv_heads": 2,
    "head_dim": 6,
    "position": AlibiConfig(),
    "window": 3,
    "bias": True,
    "output_bias": True,
    "qk_norm": RMSNormConfig(),
    "scale": 0.9,
    "softcap": 1.5,
    "sinks": True,
    "gate": True,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "attention": ({"n_heads": 4}, ATTENTION),
    "differential": ({"n_heads": 4}, {**ATTENTION, "gain": False, "eps": 0.1}),
    "differential-v2": ({"n_heads": 4}, ATTENTION),
    "convolved-attention": ({"n_heads": 4}, {**ATTENTION, "conv_width": 2}),
    "streaming": ({"n_heads": 4, "window": 2}, {**ATTENTION, "kept_first": 2}),
    "blockwise-linformer": (
        {"n_heads": 4, "block": 2, "compressed": 1},
        {**ATTENTION, "block": 4, "compressed": 2, "window": 6},
    ),
    "mamba": (
        {},
        {
            "d_state": 5,
            "expand": 3,
            "d_conv": 2,
            "dt_rank": 3,
            "bias": True,
            "conv_bias": False,
        },
    ),
    "s4d": ({}, {"d_state": 5}),
    "no-ffn": ({}, {}),
    "mla": (
        {"n_heads": 4},
        {
            "n_heads": 2,
            "kv_rank": 3,
            "q_rank": 5,
            "nope_dim": 6,
            "rope_dim": 4,
            "v_dim": 5,
            "position": NoPositionConfig(),
            "latent_norm": RMSNormConfig(0.1),
            "scale": 0.9,
        },
    ),
    "linear-attention": (
        {"n_heads": 4},
        {
            "n_heads": 2,
            "head_dim": 6,
            "features": "relu",
            "normalise": "output",
            "conv_width": 3,
        },
    ),
    "delta-net": (
        {"n_heads": 4},
        {
            "n_heads": 2,
            "n_value_heads": 8,
            "head_dim": 6,
            "value_dim": 3,
            "conv_width": None,
            "fades": False,
            "output_gate": False,
            "eps": 0.1,
        },
    ),
    "mlp": ({"d_ff": 12}, {"d_ff": 20, "activation": "silu", "bias": True}),
    "gated-mlp": ({"d_ff": 12}, {"d_ff": 20, "activation": "gelu", "bias": True}),
    "clamped-mlp": ({"d_ff": 12}, {"d_ff": 20, "bias": False, "limit": 0.1, "slope": 3.0}),
    "moe": (
        {"expert": GatedMLPConfig(12)},
        {
            "expert": MLPConfig(12),
            "n_experts": 5,
            "router": RouterConfig(top_k=3),
            "shared": MLPConfig(6),
            "capacity_factor": 0.6,
            "balance_loss": 0.5,
            "sequence_loss": 0.5,
            "z_loss": 0.5,
        },
    ),
    "top-k": (
        {},
        {
            "top_k": 3,
            "score": "sigmoid",
            "normalise": False,
            "routed_scale": 2.0,
            "logit_bias": True,
            "n_groups": 2,
        },
    ),
    "layernorm": ({}, {"eps": 0.1, "bias": False}),
    "rmsnorm": ({}, {"eps": 0.1, "offset": True}),
    "learned": ({}, {}),
    "sinusoidal": ({}, {"base": 100.0}),
    "none": ({}, {}),
    "rope": (
        {},
        {
            "base": 100.0,
            "pairing": "interleaved",
            "fraction": 0.5,
            "scaling": LinearScaling(2.0),
        },
    ),
    "alibi": ({}, {}),
    "t5": ({}, {"n_buckets": 8, "max_distance": 17}),
    "shaw": ({}, {"max_distance": 2}),
    "linear": ({"factor": 4.0}, {"factor": 2.0}),
    "ntk": (LONGER, {"factor": 2.0}),
    "yarn": (
        {"factor": 4.0, "original_max_seq_len": 400},
        {"factor": 2.0, "original_max_seq_len": 40, "beta_fast": 9.0, "beta_slow": 2.0}
        | {"sharpen": 1.25, "truncate": False},
    ),
    "llama3": (
        LONGER,
        {
            "factor": 2.0,
            "original_max_seq_len": 20,
            "low_freq_factor": 0.5,
            "high_freq_factor": 1.25,
        },
    ),
}
"""What each kind needs, and for each field another value than it has then."""
ELSEWHERE = {
    ("attention", "qk_norm_over"): "says nothing without a norm: the tests of attention",
    ("differential", "qk_norm_over"): "the same",
    ("differential-v2", "qk_norm_over"): "the same",
    ("convolved-attention", "qk_norm_over"): "the same",
    ("streaming", "qk_norm_over"): "the same",
    ("blockwise-linformer", "qk_norm_over"): "the same",
    ("s4d", "spectrum"): "says where the weights begin: the tests of S4D",
    ("ntk", "original_max_seq_len"): "a note for who reads the configuration",
    ("moe", "shared_gate"): "says nothing without a shared expert: the tests of moe",
    ("top-k", "top_groups"): "says nothing without groups: the tests of its router",
    ("top-k", "group_score"): "says nothing without groups: the tests of its router",
    ("top-k", "bias_rate"): "acts after a step: the tests of its router",
}


def made(kind: str, **changes: Any) -> Any:
    return PARTS[kind](**CASES[kind][0] | changes)


# --- JSON -----------------------------------------------------------------------------------------


def test_each_kind_and_each_field_of_it_is_tried() -> None:
    assert set(CASES) == set(PARTS)
    fields = {(kind, name) for kind, part in PARTS.items() for name in field_names(part)}
    assert fields == {(kind, n) for kind in CASES for n in CASES[kind][1]} | set(ELSEWHERE)
    for kind, part in PARTS.items():
        assert part.kind == kind
        for name, value in CASES[kind][1].items():
            assert getattr(made(kind), name) != value


@pytest.mark.parametrize("kind", PARTS)
def test_to_json_and_back(kind) -> None:
    for part in (made(kind), made(kind, **CASES[kind][1])):
        read = json.loads(json.dumps(part.to_dict()))
        again = part_from_dict(read, Part, "part")
        assert again == part and hash(again) == hash(part)
    short = {"kind": kind, **CASES[kind][0]}  # what has a default need not be said
    assert part_from_dict(short, Part, "part") == made(kind)


def test_parts_inside_parts_come_back() -> None:
    rope = RopeConfig(scaling=YarnScaling(2.0, 64))
    part = AttentionConfig(4, position=rope, qk_norm=LayerNormConfig(bias=False))
    assert part_from_dict(part.to_dict(), MixerConfig, "mixer") == part


def test_roles() -> None:
    roles = {
        MixerConfig: {
            "attention",
            "blockwise-linformer",
            "convolved-attention",
            "delta-net",
            "differential",
            "differential-v2",
            "linear-attention",
            "mamba",
            "mla",
            "s4d",
            "streaming",
        },
        FeedForwardConfig: {"mlp", "gated-mlp", "clamped-mlp", "moe", "no-ffn"},
        NormConfig: {"layernorm", "rmsnorm"},
        EmbeddingPositionConfig: {"learned", "sinusoidal"},
        AttentionPositionConfig: {"none", "rope", "alibi", "t5", "shaw"},
        RopeScaling: {"linear", "ntk", "yarn", "llama3"},
        RouterConfig: {"top-k"},
    }
    for role, names in roles.items():
        assert set(kinds(role)) == names  # type: ignore[type-abstract]
    assert sorted(name for names in roles.values() for name in names) == sorted(PARTS)
    assert kinds(NormConfig)["rmsnorm"] is RMSNormConfig  # type: ignore[type-abstract]


ROPE = {"kind": "rope", "scaling": {"kind": "yarn", "factor": 2.0, "original_max_seq_len": 4}}


@pytest.mark.parametrize(
    ("values", "role", "message"),
    [
        ("rmsnorm", NormConfig, r"norm must be an object with a \"kind\", got 'rmsnorm'"),
        ("a kind", NormConfig, r"with a \"kind\", got 'a kind'"),
        (None, NormConfig, r"with a \"kind\", got None"),
        ({"eps": 1e-5}, NormConfig, r"with a \"kind\", got {'eps'"),
        ({"kind": "rms"}, NormConfig, "unknown kind of norm 'rms'; did you mean 'rmsnorm'"),
        ({"kind": ["rmsnorm"]}, NormConfig, r"unknown kind of norm \['rmsnorm'\]"),
        ({"kind": "mlp", "d_ff": 4}, NormConfig, "unknown kind of norm 'mlp'; .* layernorm, rmsn"),
        ({"kind": "rmsnorm", "esp": 1}, NormConfig, "field of norm 'esp'; did you mean 'eps'"),
        ({"kind": "mlp", "bias": True}, FeedForwardConfig, r"norm \(mlp\) lacks d_ff"),
        ({"kind": "yarn"}, RopeScaling, r"norm \(yarn\) lacks factor, original_max_seq_len"),
        ({"kind": "rmsnorm", "eps": -1.0}, NormConfig, "norm: eps must be above 0, got -1"),
        ({"kind": "rmsnorm", "eps": "1"}, NormConfig, "norm: eps must be float, got '1'"),
        (
            {**ROPE, "scaling": {"kind": "yarm"}},
            AttentionPositionConfig,
            "unknown kind of norm.scaling 'yarm'; did you mean 'yarn'",
        ),
        (
            {**ROPE, "scaling": {**ROPE["scaling"], "factor": 0.5}},
            AttentionPositionConfig,
            "norm.scaling: factor is new length / trained length",
        ),
        (
            {**ROPE, "scaling": {"kind": "rmsnorm"}},
            AttentionPositionConfig,
            "norm: scaling must be RopeScaling or nothing, got RMSNormConfig",
        ),
    ],
)
def test_errors_name_the_place(values, role, message) -> None:
    with pytest.raises(ValueError, match=message):
        part_from_dict(values, role, "norm")


# --- what is built --------------------------------------------------------------------------------


def by_attention(part: AttentionPositionConfig) -> Tensor:
    """What a scheme in attention does to queries and to scores."""
    position, places = part.build(SITE, 4, 4), torch.arange(0, 160, 20)
    fill(position)
    q = torch.linspace(-1, 1, 128).view(1, 4, 8, 4)
    turned, bias = position.rotate(q, places), position.score_bias(q, places, places)
    return turned if bias is None else turned.sum() + bias


def by_embedding(part: EmbeddingPositionConfig) -> Tensor:
    return fill(part.build(SITE)).embed(x(), torch.arange(8))


def by_frequencies(part: RopeScaling) -> Tensor:
    frequencies = 100.0 ** (-torch.arange(8.0) / 8)
    return part.attention_factor * part.scale(frequencies, 100.0)


def by_ffn(part: FeedForwardConfig) -> Tensor:
    y, extras = split_extras(fill(part.build(SITE))(x()))
    return y + sum(extras.losses.values())


def by_weights(part: RouterConfig) -> Tensor:
    routing = fill(part.build(SITE, 6))(x())
    return torch.zeros(1, 8, 6).scatter(-1, routing.experts, routing.weights)


EFFECTS: dict[type[Part], Callable[[Any], Tensor]] = {
    MixerConfig: lambda part: fill(part.build(SITE))(x()),
    FeedForwardConfig: by_ffn,
    NormConfig: lambda part: fill(part.build(16))(x()),
    EmbeddingPositionConfig: by_embedding,
    AttentionPositionConfig: by_attention,
    RopeScaling: by_frequencies,
    RouterConfig: by_weights,
}


def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 8, 16, generator=generator)


def fill(module: Any) -> nn.Module:
    """Parameters of no special value, the same at the same place."""
    for name, p in module.named_parameters():
        generator = torch.Generator().manual_seed(len(name))
        p.data = torch.randn(p.shape, generator=generator)
    return module


@pytest.mark.parametrize("kind", [kind for kind in PARTS if kind != "no-ffn"])
@torch.no_grad()
def test_each_field_has_a_say_in_what_is_built(kind) -> None:
    """A field that ``build`` forgets would be a setting that says one thing and does another."""
    effect = next(f for role, f in EFFECTS.items() if issubclass(PARTS[kind], role))
    before = effect(made(kind))
    assert torch.equal(effect(made(kind)), before)
    for name, value in CASES[kind][1].items():
        after = effect(made(kind, **{name: value}))
        assert after.shape != before.shape or not torch.allclose(after, before), name


def test_a_shared_module_is_made_once_and_others_for_each_layer() -> None:
    site = Site(16, 8, n_layers=2)
    for kind in kinds(AttentionPositionConfig):  # type: ignore[type-abstract]
        config = PARTS[kind]()
        one, two = (config.build(site.at(i), 4, 4) for i in (0, 1))
        assert (one is two) == config.shared, kind
        mixer = AttentionConfig(4, position=config)
        places = [mixer.position_table(site.at(i)) for i in (0, 1)]
        assert (places[0] == places[1]) == config.shared
        assert places[0][1] == sum(p.numel() for p in one.parameters())
    other = PARTS["t5"]().build(site, 2, 8)  # of another number of heads
    assert other is not PARTS["t5"]().build(site, 4, 4)
