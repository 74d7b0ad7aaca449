"""A quantised model as a file: damage is noticed, schemes have the bits that they say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmtutor.interop.quantize import NF4, bits_per_weight, nearest, packed, round_model
from llmtutor.interop.quantize.files import format_from_dict, load_quantized, save_quantized
from llmtutor.interop.quantize.schemes import CALIBRATED, SCHEMES
from llmtutor.model.presets import build, preset


def model_of():
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "max_seq_len": 16, "n_layers": 1, "d_model": 16, "n_heads": 2}
    return build(preset("llama-nano", **sizes, d_ff=24)).eval()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bits_of_a_matrix_of_128_by_256(scheme: str) -> None:
    format = SCHEMES[scheme]
    assert format_from_dict(json.loads(json.dumps(format.to_dict()))) == format
    found = bits_per_weight({"w": nearest(torch.randn(128, 256), format)})
    per_group = {"int4-asymmetric": 24 / 32, "nf4": 32 / 64, "nf4-double": 8 / 64 + 0.002}
    shared = {"row": 32 / 256, "tensor": 32 / (128 * 256)}.get(str(format.share), 16 / 32)
    assert found == pytest.approx(format.bits + per_group.get(scheme, shared), abs=1e-3)
    assert (scheme in CALIBRATED) == scheme.startswith("gptq")


def test_damage_is_noticed(tmp_path: Path) -> None:
    path, small = tmp_path / "model", packed(model_of(), round_model(model_of(), NF4(16)))
    with pytest.raises(ValueError, match="expected a model with packed layers, found none"):
        save_quantized(model_of(), path)
    assert not any(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="expected a model written by save_quantized"):
        load_quantized(path)
    save_quantized(small, path)
    whole, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="model is not a whole safetensors file"):
        load_quantized(path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="found another file"):
        load_quantized(path)
    said = {"config": json.dumps(small.config.to_dict())}
    weights = [{"users": ["embedding"], "format": {"kind": "nf5"}, "shape": [19, 16]}]
    weights[0] |= {"dtype": "float32", "dynamic": False}
    save_file(tensors, path, metadata=said | {"quantized": json.dumps(weights)})
    with pytest.raises(ValueError, match="model: unknown format 'nf5'; did you mean 'nf4'"):
        load_quantized(path)
    weights[0]["format"] = NF4(16).to_dict()
    save_file(tensors, path, metadata=said | {"quantized": json.dumps(weights)})
    with pytest.raises(ValueError, match="its tensors are not those of its configuration"):
        load_quantized(path)
