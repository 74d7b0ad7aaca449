"""Weights in int8: no entry off by more than half a scale, the model whole, damage noticed."""

import doctest
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmtutor.interop import int8
from llmtutor.interop.int8 import load_int8, save_int8, to_int8
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

IDS = torch.arange(12)[None] % 19


def model_of(name: str = "llama-nano", **changes: object) -> Transformer:
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "max_seq_len": 16, "n_layers": 2, "d_model": 16, "n_heads": 2}
    return build(preset(name, **sizes, d_ff=24, **changes))


def test_examples() -> None:
    assert doctest.testmod(int8).failed == 0


def test_no_entry_is_off_by_more_than_half_a_scale() -> None:
    matrix = torch.randn(50, 30) * torch.logspace(-6, 6, 50)[:, None]
    matrix[7] = 0
    numbers, scale = to_int8(matrix)
    assert numbers.dtype == torch.int8 and int(numbers.abs().max()) == 127
    error = (matrix.double() - numbers.double() * scale.double()[:, None]).abs()
    assert bool((error <= scale.double()[:, None] * 0.50001).all())
    assert not numbers[7].any() and scale[7] == 1


@pytest.mark.parametrize("name", ["llama-nano", "gpt2-nano"])  # one of them tied, with biases
def test_a_model_comes_back_as_it_was_rounded(tmp_path: Path, name: str) -> None:
    model, path = model_of(name), tmp_path / "some" / "model.safetensors"
    save_int8(model, path)
    back = load_int8(path)
    assert back.config == model.config and not back.training
    for key, value in model.state_dict().items():
        expected = value
        if value.ndim == 2:
            numbers, scale = to_int8(value)
            expected = numbers * scale[:, None]
        assert torch.equal(back.state_dict()[key], expected)
    torch.testing.assert_close(back(IDS), model(IDS), atol=0.02, rtol=0.02)
    save_int8(back, tmp_path / "again")  # what is rounded once stays where it is
    assert torch.equal(load_int8(tmp_path / "again")(IDS), back(IDS))


def test_a_file_is_a_quarter_as_large(tmp_path: Path) -> None:
    model, path = build(preset("llama-nano", n_layers=1)), tmp_path / "model"
    save_int8(model, path)
    assert path.stat().st_size < 0.27 * sum(4 * p.numel() for p in model.parameters())


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(FileNotFoundError, match="expected a model written by save_int8"):
        load_int8(path)
    save_int8(model_of(), path)
    whole, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_int8(path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="holds no configuration"):
        load_int8(path)
    del tensors["norm.weight"]
    save_file(tensors, path, metadata={"config": json.dumps(model_of().config.to_dict())})
    with pytest.raises(ValueError, match=r"(?s)model: .*Missing key.*norm\.weight"):
        load_int8(path)
