"""The configuration is checked when it is made, stays as it is, and survives JSON."""

import dataclasses
import json

import pytest

from llmtutor.layers.positions import LinearScaling, NtkScaling, YarnScaling
from llmtutor.model.config import FIELDS, ModelConfig
from llmtutor.model.presets import PRESETS, preset

SMALL = {
    "vocab_size": 7,
    "max_seq_len": 8,
    "n_layers": 1,
    "d_model": 8,
    "n_heads": 2,
    "d_ff": 16,
}


@pytest.mark.parametrize("name", PRESETS)
def test_json_gives_the_same_configuration_back(name) -> None:
    config = PRESETS[name]
    again = ModelConfig.from_json(config.to_json())
    assert again == config and hash(again) == hash(config)
    assert list(json.loads(config.to_json())) == list(FIELDS)


@pytest.mark.parametrize(
    "scaling", [LinearScaling(2), NtkScaling(4, 128), YarnScaling(8, 128, 16, 2)], ids=repr
)
def test_json_gives_the_same_scaling_back(scaling) -> None:
    config = ModelConfig(**SMALL, rope_scaling=scaling)
    again = ModelConfig.from_json(config.to_json())
    assert again == config and type(again.rope_scaling) is type(scaling)


def test_each_field_makes_a_difference_to_json() -> None:
    """A field lost on the way would leave two different configurations the same in JSON."""
    base = ModelConfig(**SMALL, mixer="gqa")
    other = {
        "mixer": "mha",
        "n_kv_heads": 1,
        **{name: value * 2 for name, value in SMALL.items()},
        "n_heads": 4,
        "ffn": "gelu",
        "norm": "layernorm",
        "norm_placement": "post",
        "position": "none",
        "rope_base": 5.0,
        "rope_pairing": "interleaved",
        "rope_fraction": 0.5,
        "rope_scaling": LinearScaling(2),
        "tie_weights": False,
        "bias": True,
        "qk_norm": True,
        "eps": 1e-3,
        "init": "glorot",
    }
    assert set(other) == set(FIELDS)
    for name, value in other.items():
        changed = base.replace(**{name: value})
        assert getattr(changed, name) == value
        assert ModelConfig.from_json(changed.to_json()) == changed != base


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig(**SMALL).d_model = 16  # type: ignore[misc]
    with pytest.raises(TypeError):
        PRESETS["mine"] = ModelConfig(**SMALL)  # type: ignore[index]


WRONG = {
    "heads that do not divide": (
        {"n_heads": 3},
        "n_heads must divide d_model, got d_model = 8 and n_heads = 3",
    ),
    "an odd head with RoPE": (
        {"d_model": 6, "position": "rope"},
        "RoPE turns components in pairs: head_dim must be an even number of at least 2, got 3",
    ),
    "a fraction that leaves an odd number": ({"rope_fraction": 0.25}, "got 1"),
    "a base that stands still": ({"rope_base": 1.0}, "rope_base must be above 1, got 1.0"),
    "an odd width with sinusoids": (
        {"position": "sinusoidal", "d_model": 9, "n_heads": 3},
        "d_model must be even with sinusoidal positions, got 9",
    ),
    "no layer": ({"n_layers": 0}, "n_layers must be at least 1, got 0"),
    "a negative size": ({"vocab_size": -5}, "vocab_size must be at least 1, got -5"),
    "a size that is no integer": ({"d_model": 8.0}, "d_model must be int, got 8.0"),
    "True for a number": ({"n_layers": True}, "n_layers must be int, got True"),
    "1 for a flag": ({"bias": 1}, "bias must be bool, got 1"),
    "text for a number": ({"eps": "1e-5"}, "eps must be float, got '1e-5'"),
    "no eps": ({"eps": 0.0}, "eps must be above 0, got 0.0"),
    "nan for eps": ({"eps": float("nan")}, "eps must be above 0, got nan"),
    "a dictionary for a scaling": ({"rope_scaling": {"factor": 2}}, "rope_scaling must be"),
    "key heads that do not divide": (
        {"mixer": "gqa", "n_heads": 4, "n_kv_heads": 3},
        "n_kv_heads must divide n_heads, both at least 1: got n_heads = 4, n_kv_heads = 3",
    ),
    "no key head": ({"mixer": "gqa", "n_kv_heads": 0}, "at least 1: got n_heads = 2, n_kv_heads"),
    "half a key head": ({"mixer": "gqa", "n_kv_heads": 0.5}, "n_kv_heads must be int, got 0.5"),
    "key heads without groups": ({"n_kv_heads": 2}, "n_kv_heads = 2 needs mixer = 'gqa', got"),
    "a mixer": ({"mixer": "mah"}, "unknown mixer 'mah'; did you mean 'mha'?"),
    "a norm": ({"norm": "RMSnorm"}, "unknown norm 'RMSnorm'; did you mean 'rmsnorm'?"),
    "an ffn": ({"ffn": "swigelu"}, "unknown ffn 'swigelu'; did you mean 'swiglu'?"),
    "a position": ({"position": "rotary"}, "unknown position 'rotary'; did you mean"),
    "a position nearly right": ({"position": "rop"}, "did you mean 'rope'?"),
    "a placement": ({"norm_placement": "prenorm"}, "unknown norm_placement 'prenorm'; did you"),
    "a pairing": ({"rope_pairing": "halves"}, "did you mean 'half'?"),
    "an initialisation": ({"init": "gpt"}, "unknown init 'gpt'; did you mean 'gpt2'?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_refused_by_name(case) -> None:
    changes, message = WRONG[case]
    with pytest.raises(ValueError) as error:
        ModelConfig(**{**SMALL, **changes})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "a configuration is a JSON object, got list"),
        ("{", "Expecting property name"),
        ("{}", "lacks vocab_size, max_seq_len, n_layers, d_model, n_heads, d_ff"),
        ('{"n_layer": 3}', "unknown field 'n_layer'; did you mean 'n_layers'?"),
        (
            json.dumps({**SMALL, "rope_scaling": {"type": "yarm", "factor": 2}}),
            "unknown rope_scaling type 'yarm'; did you mean 'yarn'?",
        ),
        (
            json.dumps({**SMALL, "rope_scaling": {"type": "linear", "facto": 2}}),
            "unknown rope_scaling option 'facto'; did you mean 'factor'?",
        ),
        (
            json.dumps({**SMALL, "rope_scaling": {"type": "ntk", "factor": 2}}),
            "rope_scaling ntk lacks original_max_seq_len",
        ),
        (json.dumps({**SMALL, "rope_scaling": 2}), 'rope_scaling must be null or have a "type"'),
    ],
)
def test_wrong_json_is_refused_by_name(text, message) -> None:
    with pytest.raises(ValueError) as error:
        ModelConfig.from_json(text)
    assert message in str(error.value)


def test_presets_take_changes_and_name_what_is_unknown() -> None:
    assert preset("gpt2", n_layers=3) == PRESETS["gpt2"].replace(n_layers=3)
    with pytest.raises(ValueError, match="unknown preset 'gpt-2'; did you mean 'gpt2'"):
        preset("gpt-2")
    with pytest.raises(ValueError, match="unknown field 'heads'; did you mean 'n_heads'"):
        preset("gpt2", heads=3)
    with pytest.raises(ValueError, match="n_heads must divide d_model"):
        preset("gpt2", n_heads=5)
