"""The settings of a run are checked when they are made, and survive JSON."""

import dataclasses
import inspect
import json

import numpy as np
import pytest

from llmtutor.train.config import FREE, TrainConfig


def test_json_gives_the_same_settings_back() -> None:
    config = TrainConfig(
        model={"n_layers": 2, "rope_base": 5e4, "bias": True, "norm": "layernorm"},
        lr=3e-4,
        clip=None,
        warmup=7,
        loggers=("wandb",),
        compile=True,
    )
    again = TrainConfig.from_json(config.to_json())
    assert again == config
    assert type(again.model["bias"]) is bool and again.loggers == ("wandb",)
    assert list(json.loads(config.to_json())) == [f.name for f in dataclasses.fields(config)]


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0  # type: ignore[misc]


def test_each_field_is_documented_in_the_help() -> None:
    """The text under a field is what --help shows; one without it would show nothing."""
    source = inspect.getsource(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        after = source.split(f"\n    {field.name}: ", 1)[1].split("\n", 2)[1]
        assert after.strip().startswith('"""'), field.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "llama-nan"}, "unknown preset 'llama-nan'; did you mean 'llama-nano'"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"schedule": "cosine"}, "did you mean 'warmup_cosine'"),
        ({"precision": "float16"}, "did you mean 'bfloat16'"),
        ({"strategy": "dpp"}, "did you mean 'ddp'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"loggers": ("wandbs",)}, "did you mean 'wandb'"),
        ({"model": {"n_layer": 2}}, "did you mean 'n_layers'"),
        ({"model": {"n_heads": 5}}, "n_heads must divide d_model"),
        ({"model": {"max_seq_len": 64}}, "seq_len must be at most .* got 128 and 64"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"keep": 0}, "keep must be at least 1"),
        ({"seed": -1}, r"seed must lie between 0 and 2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, r"seed must lie between 0 and 2\*\*64 - 1, got 18446744073709551616"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be a finite number"),
        ({"final_lr": float("inf")}, "final_lr must be a finite number"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"clip": -1.0}, "clip must be above 0"),
        ({"lr": "fast"}, "lr must be float, got 'fast'"),
        ({"preset": ["gpt2"]}, r"unknown preset \['gpt2'\]; did you mean"),
        ({"corpus": None}, "corpus must be str, got None"),
        ({"model": [("n_layers", 2)]}, "model must be dict"),
        ({"model": {3: 2}}, "unknown field '3'"),
        ({"loggers": "wandb"}, "loggers must be a list of names, got 'wandb'"),
        ({"loggers": 3}, "loggers must be a list of names, got 3"),
        ({"fast": ("keep_memory",)}, "did you mean 'keep-memory'"),
        ({"steps": 10.5}, "steps must be int"),
        ({"steps": True}, "steps must be int"),
        ({"clip": "1"}, "clip must be float or nothing"),
        ({"compile": 1}, "compile must be bool"),
        ({"batch_size": 32, "accumulate": 5}, "accumulate must divide batch_size"),
        ({"steps": 50, "warmup": 50}, "warmup = 50 do not fit into steps = 50"),
        ({"eval_tokens": 0}, "eval_tokens must be at least 1"),
    ],
)
def test_a_bad_value_is_refused_by_name(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"stepz": 3}', "unknown field 'stepz'; did you mean 'steps'"),
        ("[1]", "a configuration is a JSON object, got list"),
        ("{", "a configuration is JSON"),
        ("[" * 100_000, "a configuration is JSON"),
        (b"\xff\xfe{", "a configuration is JSON"),
        ('{"lr": NaN}', "lr must be a finite number"),
        ('{"loggers": "wandb"}', "loggers must be a list"),
        ('{"model": 3}', "model must be dict"),
    ],
)
def test_bad_json_is_refused(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_json(text)


def test_numbers_of_numpy_become_plain_ones() -> None:
    config = TrainConfig(
        steps=np.int64(7),
        lr=np.float32(0.5),
        compile=np.bool_(True),
        model={"n_layers": np.int8(2)},
    )
    assert TrainConfig.from_json(config.to_json()) == config
    values = (config.steps, config.lr, config.compile, config.model["n_layers"])
    assert [type(value) for value in values] == [int, float, bool, int]


def test_differences_name_what_changes_the_run_and_nothing_else() -> None:
    config = TrainConfig()
    other = TrainConfig(lr=2e-3, model={"n_layers": 2}, out="x", keep=9, device="cpu", save_every=1)
    other = dataclasses.replace(other, fast=["keep-memory"])
    assert other.fast == ("keep-memory",)
    assert config.differences(other) == [
        'model: {} → {"n_layers": 2}',
        "lr: 0.001 → 0.002",
    ]
    assert set(FREE) <= {f.name for f in dataclasses.fields(TrainConfig)}


def test_the_model_takes_the_vocabulary_and_the_length_of_the_run() -> None:
    config = TrainConfig(preset="gpt2-nano", seq_len=48, model={"n-layers": 3})
    model = config.model_config(vocab_size=61)
    assert (model.vocab_size, model.max_seq_len, model.n_layers) == (61, 48, 3)


def test_a_vocabulary_may_be_larger_than_the_tokenizers_and_not_smaller() -> None:
    config = TrainConfig(model={"vocab_size": 64})
    assert config.model_config(vocab_size=58).vocab_size == 64
    with pytest.raises(ValueError, match="vocab_size must be at least the tokenizer's, 65, got 64"):
        config.model_config(vocab_size=65)


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.txt").write_text("x", encoding="utf-8")
    for name in ("tokens", "shakespeare"):
        (tmp_path / name).mkdir()
    config = TrainConfig(corpus="c.txt", tokenizer="tokens").located()
    monkeypatch.chdir("/")
    assert (config.corpus, config.tokenizer) == (str(tmp_path / "c.txt"), str(tmp_path / "tokens"))
    assert config.located() == config
    monkeypatch.chdir(tmp_path)
    for named in (TrainConfig(), TrainConfig(corpus="gone.txt", tokenizer="bpe-300")):
        assert named.located() == named


def test_warm_up_is_a_tenth_of_a_short_run() -> None:
    factor = TrainConfig(steps=50, final_lr=0.0).make_schedule()
    assert [round(factor(step), 3) for step in (0, 4, 5)] == [0.167, 0.833, 1.0]
    assert factor(49) < 0.01
