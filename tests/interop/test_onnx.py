"""ONNX Runtime computes what our models compute, at any length and step by step from a cache."""

import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from llmtutor.interop import onnx
from llmtutor.interop.onnx import export_onnx, export_onnx_decoder, no_decoder
from llmtutor.layers.positions import LinearScaling
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

SIZES = {"vocab_size": 61, "max_seq_len": 128, "n_layers": 2, "d_model": 32, "n_heads": 4}
LLAMA = ModelConfig.uniform(**SIZES, d_ff=48)
CONFIGS = {
    "shared heads, a window, norms of q and k": LLAMA.replace(
        n_kv_heads=2, window=9, qk_norm="rmsnorm", rope_scaling=LinearScaling(2.0)
    ),
    "pairs of neighbours, biases, a head of its own": LLAMA.replace(
        rope_pairing="interleaved", bias=True, tie_weights=False, softcap=5.0
    ),
    "learned positions": preset("gpt2", **SIZES, d_ff=48),
}


def made(config: ModelConfig) -> Transformer:
    torch.manual_seed(0)
    model = build(config).eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def tokens(batch: int, seq: int) -> Tensor:
    return torch.randint(61, (batch, seq), generator=torch.Generator().manual_seed(seq))


class Session:
    """A decoder in onnxruntime, and what it has read."""

    def __init__(self, path: Path, batch: int) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        shapes = {one.name: one.shape for one in self.session.get_inputs()[1:]}
        self.past = {
            name: np.zeros((batch, heads, 0, head_dim), np.float32)
            for name, (_, heads, _, head_dim) in shapes.items()
        }

    def __call__(self, ids: Tensor) -> Tensor:
        logits, *past = self.session.run(None, {"ids": ids.numpy(), **self.past})
        self.past = dict(zip(self.past, past, strict=True))
        return torch.from_numpy(logits)


@pytest.fixture(scope="module", params=CONFIGS)
def decoder(request, tmp_path_factory) -> tuple[Transformer, Path]:
    model = made(CONFIGS[request.param])
    path = tmp_path_factory.mktemp("onnx") / "decoder.onnx"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx_decoder(model, path)
    assert [path] == list(path.parent.iterdir())
    assert b".py" not in path.read_bytes()  # torch would add the place of each line that it traced
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return model, path


@torch.no_grad()
def test_a_text_of_any_length_at_once_and_in_parts(decoder) -> None:
    model, path = decoder
    for batch, seq in ((1, 1), (2, 3), (3, 40), (1, 128)):
        ids = tokens(batch, seq)
        close(Session(path, batch)(ids), model(ids))
    ids, session = tokens(2, 30), Session(path, 2)
    cuts = [0, 1, 2, 9, 10, 24, 30]
    parts = [session(ids[:, a:b]) for a, b in pairwise(cuts)]
    close(torch.cat(parts, 1), model(ids))
    assert session.past["past_keys.1"].shape[2] == 30


@torch.no_grad()
def test_it_writes_the_same_100_tokens(decoder) -> None:
    model, path = decoder
    ids, session = tokens(1, 5), Session(path, 1)
    step, cache = ids, model.make_caches(1)
    for _ in range(100):
        ours, theirs = model(step, cache=cache)[:, -1], session(step)[:, -1]
        close(theirs, ours)
        step = ours.argmax(-1, keepdim=True)
        assert torch.equal(step, theirs.argmax(-1, keepdim=True))


@torch.no_grad()
def test_whole_texts_without_a_cache(tmp_path) -> None:
    """Of a layer that keeps no keys too; in another dtype, from which float32 is made."""
    model = made(LLAMA.replace(n_layers=1, mixer="linear-attention")).double()
    path = tmp_path / "new" / "model.onnx"
    export_onnx(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, seq in ((1, 1), (2, 3), (3, 40), (1, 128)):
        ids = tokens(batch, seq)
        (logits,) = session.run(None, {"ids": ids.numpy()})
        close(torch.from_numpy(logits), model(ids).float())
    assert model.head.weight.dtype == torch.float64


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


# What is refused ----------------------------------------------------------------------------------


def test_a_mixer_without_keys_and_values_is_named(tmp_path) -> None:
    plain, other = LLAMA.blocks[0], LLAMA.replace(mixer="linear-attention").blocks[0]
    model = build(LLAMA.replace(blocks=(plain, other)))
    assert no_decoder(build(LLAMA)) is None
    with pytest.raises(ValueError, match=r"blocks\[1\]\.mixer is of kind 'linear-attention'"):
        export_onnx_decoder(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class HalfWritten:
    model = SimpleNamespace(graph=SimpleNamespace(all_nodes=list), functions={})

    def save(self, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")


def test_a_failed_export_leaves_what_was_there(tmp_path, monkeypatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")

    def failing(model, example, **options):
        raise torch.onnx.errors.OnnxExporterError("no such operation\nand more")

    monkeypatch.setattr(torch.onnx, "export", failing)
    with pytest.raises(ValueError, match=r"model.onnx: torch cannot write .* ONNX: no such op.*n$"):
        export_onnx(build(LLAMA), path)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: HalfWritten())
    with pytest.raises(OSError, match="no space left"):
        export_onnx(build(LLAMA), path)
    assert path.read_bytes() == b"before" and [path] == list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"model\.onnx"):
        export_onnx(build(LLAMA), path / "below.onnx")


def test_what_is_not_installed_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(onnx, "NEEDED", ("onnx", "no_such_package"))
    assert "no_such_package" not in sys.modules
    with pytest.raises(ValueError, match=r"needs no_such_package: pip install 'llmtutor\[export"):
        export_onnx(build(LLAMA), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
