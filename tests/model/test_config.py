"""The configuration is checked when it is made, stays as it is, and survives JSON."""

import dataclasses
import json

import pytest

from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig, MLPConfig
from llmtutor.layers.norms import LayerNormConfig, RMSNormConfig
from llmtutor.layers.positions import (
    LearnedPositionConfig,
    LinearScaling,
    Llama3Scaling,
    NoPositionConfig,
    NtkScaling,
    RopeConfig,
    ShawPositionConfig,
    SinusoidalPositionConfig,
    YarnScaling,
)
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import FIELDS, ModelConfig
from llmtutor.model.presets import PRESETS, preset

SMALL = {
    "vocab_size": 7,
    "max_seq_len": 8,
    "n_layers": 2,
    "d_model": 8,
    "n_heads": 2,
    "d_ff": 16,
}
BASE = ModelConfig.uniform(**SMALL)


@pytest.mark.parametrize("name", PRESETS)
def test_json_gives_the_same_configuration_back(name) -> None:
    config = PRESETS[name]
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)
    assert list(config.to_dict()) == list(FIELDS)


@pytest.mark.parametrize(
    "scaling",
    [
        LinearScaling(2),
        NtkScaling(4, 128),
        YarnScaling(8, 128, 16, 2),
        Llama3Scaling(8, 128, 2.0, 5.0),
    ],
    ids=repr,
)
def test_json_gives_the_same_scaling_back(scaling) -> None:
    config = ModelConfig.uniform(**SMALL, rope_scaling=scaling)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and again.blocks[0].mixer.position.scaling == scaling


CHANGES = {
    "vocab_size": 14,
    "max_seq_len": 16,
    "d_model": 16,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 1,
    "head_dim": 6,
    "window": 3,
    "output_bias": True,
    "qk_norm": "rmsnorm",
    "qk_norm_over": "heads",
    "scale": 0.5,
    "softcap": 20.0,
    "sinks": True,
    "gate": True,
    "d_ff": 32,
    "activation": "gelu",
    "bias": True,
    "ffn": "gelu",
    "mixer": AttentionConfig(1),
    "norm": "layernorm",
    "norm_placement": "post",
    "position": "none",
    "eps": 1e-3,
    "offset": True,
    "rope_base": 5.0,
    "rope_pairing": "interleaved",
    "rope_fraction": 0.5,
    "rope_scaling": LinearScaling(2),
    "tie_weights": False,
    "embedding_scale": 2.0,
    "logit_softcap": 30.0,
    "init": "glorot",
    "blocks": BASE.blocks[:1],
}


def test_each_change_makes_a_difference_to_json() -> None:
    """A field lost on the way would leave two different configurations the same in JSON."""
    for name, value in CHANGES.items():
        changed = BASE.replace(**{name: value})
        again = ModelConfig.from_dict(json.loads(json.dumps(changed.to_dict())))
        assert again == changed != BASE, name
    with pytest.raises(ValueError) as error:
        BASE.replace(nothing=0)
    offered = str(error.value).split("There are ")[1].split(", ")
    assert set(offered) == set(CHANGES)


def test_a_change_reaches_every_block_and_the_last_norm() -> None:
    changed = BASE.replace(eps=0.1, d_ff=4, rope_base=7.0, qk_norm="rmsnorm", n_layers=3)
    assert changed.n_layers == 3 and changed.norm == RMSNormConfig(0.1)
    for block in changed.blocks:
        assert block.norm == block.mixer.qk_norm == RMSNormConfig(0.1)
        assert block.ffn == GatedMLPConfig(4) and block.mixer.position == RopeConfig(7.0)
    assert BASE.replace(norm_placement="post").norm is None
    assert BASE.replace(norm_placement="post").replace(norm_placement="res-post") == BASE.replace(
        norm_placement="res-post"
    )


def test_a_part_by_name_takes_over_what_it_has_in_common() -> None:
    config = ModelConfig.uniform(**SMALL, bias=True, eps=0.1, norm="layernorm", ffn="relu")
    assert config.blocks[0].norm == config.norm == LayerNormConfig(0.1, bias=True)
    assert config.blocks[0].ffn == MLPConfig(16, "relu", bias=True)
    assert config.replace(ffn="glu").blocks[1].ffn == GatedMLPConfig(16, "sigmoid", bias=True)
    assert BASE.replace(norm="layernorm").norm == LayerNormConfig(bias=False)
    kept = BASE.replace(rope_base=9.0).replace(position="rope").blocks[0].mixer.position
    assert kept == RopeConfig(9.0)
    assert BASE.replace(position=ShawPositionConfig(4)).blocks[0].mixer.position.max_distance == 4


def test_a_part_by_name_needs_what_nobody_has_to_be_said_beside_it() -> None:
    """A block of Mamba alone has no heads and no hidden units that attention could take over."""
    mamba = BASE.replace(mixer="mamba", ffn="no-ffn")
    for changes, lacking in (({"mixer": "attention"}, "n_heads"), ({"ffn": "swiglu"}, "d_ff")):
        with pytest.raises(ValueError, match=f"needs {lacking}, and no part of the block has one"):
            mamba.replace(**changes)
    back = mamba.replace(mixer="attention", n_heads=2, ffn="swiglu", d_ff=4)
    assert (back.blocks[0].mixer.n_heads, back.blocks[0].ffn.d_ff) == (2, 4)


def test_positions_act_in_one_place() -> None:
    for name, below in (
        ("learned", LearnedPositionConfig()),
        ("sinusoidal", SinusoidalPositionConfig()),
    ):
        config = BASE.replace(position=name)
        assert config.position == below
        assert {block.mixer.position for block in config.blocks} == {NoPositionConfig()}
        assert config.replace(position="rope") == BASE


def test_a_pattern_of_layers_is_repeated_and_cut() -> None:
    local, full = BASE.replace(window=3).blocks[0], BASE.blocks[0]
    config = BASE.replace(blocks=(local, local, full))
    assert config.n_layers == 3
    windows = [block.mixer.window for block in config.replace(n_layers=7, d_ff=4).blocks]
    assert windows == [3, 3, None, 3, 3, None, 3]
    assert config.replace(n_layers=2).blocks == (local, local)


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.d_model = 16  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.blocks[0].ffn.d_ff = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        PRESETS["mine"] = BASE  # type: ignore[index]


WRONG = {
    "heads that do not divide": (
        {"n_heads": 3},
        "n_heads must divide d_model unless head_dim is given, got d_model = 8 and n_heads = 3",
    ),
    "an odd head with RoPE": (
        {"d_model": 6, "position": "rope"},
        "RoPE turns components in pairs: head_dim must be an even number of at least 2, got 3",
    ),
    "a fraction that leaves an odd number": ({"rope_fraction": 0.25}, "got 1"),
    "a base that stands still": ({"rope_base": 1.0}, "base must be above 1, got 1"),
    "a scaling without two pairs": (
        {"d_model": 6, "n_heads": 3, "rope_scaling": NtkScaling(2.0, 8)},
        "NTK scaling spreads over at least 4 components, got 2",
    ),
    "an odd width with sinusoids": (
        {"position": "sinusoidal", "d_model": 9, "n_heads": 3},
        "d_model, or what turns of head_dim, must be even, got 9",
    ),
    "no layer": ({"n_layers": 0}, "n_layers must be at least 1, got 0"),
    "a negative size": ({"vocab_size": -5}, "vocab_size must be at least 1, got -5"),
    "a size that is no integer": ({"d_model": 8.0}, "d_model must be int, got 8.0"),
    "True for a number": ({"n_layers": True}, "n_layers must be a whole number, got True"),
    "1 for a flag": ({"bias": 1}, "bias must be bool, got 1"),
    "text for a number": ({"eps": "1e-5"}, "eps must be float, got '1e-5'"),
    "no eps": ({"eps": 0.0}, "eps must be above 0, got 0.0"),
    "nan for eps": ({"eps": float("nan")}, "eps must be a finite number, got nan"),
    "a dictionary for a scaling": ({"rope_scaling": {"factor": 2}}, "scaling must be RopeScaling"),
    "KV heads that do not divide": (
        {"n_heads": 4, "n_kv_heads": 3},
        "n_kv_heads must divide n_heads, both at least 1: got n_heads = 4, n_kv_heads = 3",
    ),
    "no KV head": ({"n_kv_heads": 0}, "at least 1: got n_heads = 2, n_kv_heads"),
    "half a KV head": ({"n_kv_heads": 0.5}, "n_kv_heads must be int or nothing, got 0.5"),
    "a window of nothing": ({"window": 0}, "window must be at least 1"),
    "a cap of nothing": ({"softcap": 0.0}, "softcap must be above 0"),
    "a scale of nothing": ({"embedding_scale": -1.0}, "embedding_scale must be above 0, got -1"),
    "a mixer": ({"mixer": "atention"}, "unknown mixer 'atention'; did you mean 'attention'?"),
    "a norm": ({"norm": "RMSnorm"}, "unknown norm 'RMSnorm'; did you mean 'rmsnorm'?"),
    "an ffn": ({"ffn": "swigelu"}, "unknown ffn 'swigelu'; did you mean 'swiglu'?"),
    "an activation": ({"activation": "swish"}, "unknown activation 'swish'; did you mean"),
    "a position": ({"position": "rotary"}, "unknown position 'rotary'; did you mean"),
    "a position nearly right": ({"position": "rop"}, "did you mean 'rope'?"),
    "a placement": ({"norm_placement": "prenorm"}, "norm_placement must be one of 'pre', 'post'"),
    "a pairing": ({"rope_pairing": "halves"}, "pairing must be one of 'interleaved', 'half'"),
    "an initialisation": ({"init": "gpt"}, "unknown init 'gpt'; did you mean 'gpt2'?"),
    "RoPE's base without RoPE": (
        {"position": "alibi", "rope_bas": 2.0},
        "unknown field 'rope_bas'; did you mean 'rope_base'?",
    ),
    "a part of another role": ({"ffn": RMSNormConfig()}, "ffn must be FeedForwardConfig, got RMS"),
    "blocks that are none": ({"blocks": (1,)}, "blocks[0] must be a BlockConfig, got 1"),
    "no block": ({"blocks": ()}, "n_layers must be at least 1, got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_refused_by_name(case) -> None:
    changes, message = WRONG[case]
    with pytest.raises(ValueError) as error:
        ModelConfig.uniform(**{**SMALL, **changes})
    assert message in str(error.value)


def changed(path: str, value: object) -> dict:
    """The plain values of BASE with one value replaced, or taken out (``...``)."""
    content = BASE.to_dict()
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place = content
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


ROPE = "blocks.1.mixer.position"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "the configuration must be an object with vocab_size, max_seq_len, d_model, blocks"),
        ({}, "the configuration lacks vocab_size, max_seq_len, d_model, blocks"),
        ({"vocab_siz": 3}, "field of the configuration 'vocab_siz'; did you mean 'vocab_size'?"),
        (changed("blocks", 3), "blocks must be a list, got 3"),
        (
            changed("blocks.1", 3),
            "blocks[1] must be an object with mixer, ffn, norm, norm_placement, got 3",
        ),
        (changed("blocks.1.ffn", ...), "blocks[1] lacks ffn"),
        (changed("blocks.1.nrm", 3), "unknown field of blocks[1] 'nrm'; did you mean 'norm'?"),
        (changed("blocks.1.norm", None), 'blocks[1].norm must be an object with a "kind"'),
        (changed("blocks.0.mixer", "mha"), 'blocks[0].mixer must be an object with a "kind"'),
        (changed("blocks.0.mixer.kind", "atention"), "did you mean 'attention'?"),
        (changed("blocks.0.mixer.kind", "rmsnorm"), "unknown kind of blocks[0].mixer 'rmsnorm'"),
        (changed("blocks.0.mixer.n_heads", ...), "blocks[0].mixer (attention) lacks n_heads"),
        (changed("blocks.0.mixer.n_heads", "2"), "blocks[0].mixer: n_heads must be int, got '2'"),
        (changed(f"{ROPE}.bas", 2), "unknown field of blocks[1].mixer.position 'bas'; did you"),
        (changed(f"{ROPE}.scaling", {"kind": "yarm"}), "'yarm'; did you mean 'yarn'?"),
        (
            changed(f"{ROPE}.scaling", {"kind": "ntk", "factor": 2}),
            "blocks[1].mixer.position.scaling (ntk) lacks original_max_seq_len",
        ),
        (changed("norm", {"kind": "rope"}), "unknown kind of norm 'rope'"),
        (changed("tie_weights", None), "tie_weights must be bool, got None"),
    ],
)
def test_wrong_json_is_refused_by_name(values, message) -> None:
    with pytest.raises(ValueError) as error:
        ModelConfig.from_dict(values)
    assert message in str(error.value)


def test_a_configuration_reads_like_the_model() -> None:
    block = BlockConfig(AttentionConfig(2, position=RopeConfig()), GatedMLPConfig(16))
    sizes = {name: SMALL[name] for name in ("vocab_size", "max_seq_len", "d_model")}
    assert ModelConfig(**sizes, blocks=2 * (block,), norm=RMSNormConfig()) == BASE
    assert ModelConfig(**sizes, blocks=[block, block], norm=RMSNormConfig()) == BASE


def test_presets_take_changes_and_name_what_is_unknown() -> None:
    assert preset("gpt2", n_layers=3) == PRESETS["gpt2"].replace(n_layers=3)
    with pytest.raises(ValueError, match="unknown preset 'gpt-2'; did you mean 'gpt2'"):
        preset("gpt-2")
    with pytest.raises(ValueError, match="unknown field 'heads'; did you mean 'n_heads'"):
        preset("gpt2", heads=3)
    with pytest.raises(ValueError, match="n_heads must divide d_model"):
        preset("gpt2", n_heads=5)
