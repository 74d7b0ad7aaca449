"""A whole model in few bits: tied or not, better than rounding in every layer, kept in a file."""

import doctest
from pathlib import Path

import pytest
import torch

from llmtutor.experiments.kept import load_kept
from llmtutor.interop.quantize import (
    SCHEMES,
    Integers,
    apply,
    bits_per_weight,
    calibrate,
    gptq_model,
    load_quantized,
    outliers,
    packed,
    round_model,
    save_quantized,
    stored_bytes,
    unpacked,
)
from llmtutor.interop.quantize.apply import matrices, weight
from llmtutor.interop.quantize.calibrate import hessians
from llmtutor.interop.quantize.gptq import output_error
from llmtutor.interop.quantize.linear import Int8Linear
from llmtutor.interop.quantize.outliers import column_scales, spread
from llmtutor.model.presets import build, preset

INT4 = Integers(4, share=16)
IDS = torch.arange(12)[None] % 19


def model_of(name: str = "llama-nano", **changes: object):
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "max_seq_len": 16, "n_layers": 2, "d_model": 16, "n_heads": 2}
    return build(preset(name, **sizes, **{"d_ff": 24, **changes})).eval()


@pytest.mark.parametrize("module", [apply, outliers])
def test_examples(module) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["llama-nano", "gpt2-nano"])
@pytest.mark.parametrize("scheme", ["int8", "int4-asymmetric", "nf4-double"])
def test_packed_and_unpacked_compute_the_same(name: str, scheme: str, tmp_path: Path) -> None:
    model = model_of(name)
    rounded = round_model(model, SCHEMES[scheme])
    small, plain = packed(model, rounded), unpacked(model, rounded)
    assert torch.equal(small(IDS), plain(IDS)) and not torch.equal(small(IDS), model(IDS))
    assert small.config == model.config and stored_bytes(plain) == stored_bytes(model)
    save_quantized(small, tmp_path / "some" / "model")
    back = load_quantized(tmp_path / "some" / "model")
    assert torch.equal(back(IDS), small(IDS)) and back.config == model.config
    caches = back.make_caches(1, 12)  # which looks at a weight for its dtype
    torch.testing.assert_close(back(IDS, cache=caches), small(IDS))


def test_bytes_are_counted_once_and_are_fewer() -> None:
    """Tied: the embedding is stored once. 4 bits and a scale of 16 for each 16: 5 bits a weight."""
    for tied in (True, False):
        model = model_of(tie_weights=tied)
        assert ("head" in matrices(model)) != tied
        assert stored_bytes(model) == 4 * sum(p.numel() for p in model.parameters())
        rounded = round_model(model, INT4, [n for n in matrices(model) if "down" not in n])
        kept = [n for n in matrices(model) if "down" in n]
        n = sum(weight(model, name).numel() for name in rounded)
        assert bits_per_weight(rounded) == 5
        small = packed(model, rounded)
        left = sum(weight(model, name).nbytes for name in kept) + 5 * 16 * 4  # and five norms
        assert stored_bytes(small) == n * 5 // 8 + left
        if tied:
            assert small.embedding.packed is small.head.packed


def test_only_some() -> None:
    model = model_of()
    only = ["blocks.1.ffn.down"]
    changed = unpacked(model, round_model(model, INT4, only)).state_dict()
    off = [n for n, x in model.state_dict().items() if not torch.equal(x, changed[n])]
    assert off == ["blocks.1.ffn.down.weight"]
    with pytest.raises(ValueError, match=r"unknown matrix 'block\.1\.ffn\.down'; did you mean"):
        round_model(model, INT4, ["block.1.ffn.down"])
    with pytest.raises(ValueError, match="found none: is it packed"):
        round_model(packed(model, round_model(model, INT4)), INT4)
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="head: expected a matrix of finite numbers"):
        round_model(model, INT4)


def test_inputs_in_int8_too(tmp_path: Path) -> None:
    model = model_of()
    rounded = round_model(model, Integers(8))
    dynamic = packed(model, rounded, dynamic=True)
    assert isinstance(dynamic.head, Int8Linear)
    off = (dynamic(IDS) - model(IDS)).abs().max()
    assert 0 < off < 0.05
    save_quantized(dynamic, tmp_path / "model")
    assert torch.equal(load_quantized(tmp_path / "model")(IDS), dynamic(IDS))
    with pytest.raises(ValueError, match="expected Integers"):
        packed(model, round_model(model, INT4), dynamic=True)


def test_every_layer_of_a_trained_model_is_nearer_than_by_rounding() -> None:
    """The last rung of the staircase; the error of a layer on the inputs that it gets."""
    model, tokenizer = load_kept()
    text = "\n".join(
        f"KING {i}.\nWhat say you, my lord of {n}? I am no {i}th Henry." for i, n in TEXT
    )
    ids = torch.tensor(tokenizer.encode(text))[:1024].view(8, 128)
    rounded, plain = gptq_model(model, ids, SCHEMES["gptq"]), round_model(model, SCHEMES["gptq"])
    assert list(rounded) == list(matrices(model)) and len(rounded) == 6 * 7 + 2
    assert torch.equal(rounded["embedding"].codes, plain["embedding"].codes)
    # With the inputs that each layer gets in the rounded model.
    names = [name for name in rounded if name != "embedding"]
    bends = hessians(unpacked(model, rounded), names, ids)
    assert len(bends) == 6 * 7 + 1
    for name, bend in bends.items():
        exact = weight(model, name)
        errors = [output_error(exact, one[name].matrix(), bend) for one in (rounded, plain)]
        assert errors[0] < 0.5 * errors[1], name


TEXT = list(enumerate(["Norfolk", "Suffolk", "York", "Lancaster", "Kent", "Exeter"] * 12))


def test_a_block_is_rounded_for_what_the_rounded_blocks_give() -> None:
    model = model_of(tie_weights=False)
    ids = torch.randint(19, (6, 16))
    all_ = gptq_model(model, ids, INT4)
    last = [name for name in all_ if name.startswith("blocks.1.")]
    before = {name: one for name, one in all_.items() if name not in last}
    again = gptq_model(unpacked(model, before), ids, INT4, last)
    for name in last:
        assert torch.equal(again[name].codes, all_[name].codes)
    alone = gptq_model(model, ids, INT4, last)
    assert any(not torch.equal(alone[name].codes, all_[name].codes) for name in last)


def test_tied_and_unread_matrices_are_rounded_to_nearest() -> None:
    model = model_of(tie_weights=True)
    ids = torch.randint(19, (4, 16))
    plain = round_model(model, INT4)
    assert torch.equal(gptq_model(model, ids, INT4)["embedding"].codes, plain["embedding"].codes)
    with torch.no_grad():
        model.blocks[1].norm_2.weight.zero_()  # gate and up read nothing but zeros, and give none
    found, plain = gptq_model(model, ids, INT4), round_model(model, INT4)
    for name in ("gate", "up", "down"):
        one = f"blocks.1.ffn.{name}"
        assert torch.equal(found[one].codes, plain[one].codes)
    assert doctest.testmod(calibrate).failed == 0
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.query: the Hessian is singular"):
        gptq_model(model, ids[:1, :4], INT4, ["blocks.0.mixer.query"], damping=0.0)


def test_outliers_are_seen() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, 4)
    x[:, 2] *= 50
    x[7, 1] = 100
    found = spread(x)
    assert found[1] > 25 and bool((found[[0, 2, 3]] < 5).all())
    model, ids = model_of(), torch.randint(19, (3, 16))
    with torch.no_grad():
        model.blocks[0].norm_1.weight[5] = 100
    scales = column_scales(model, ["blocks.0.mixer.key"], ids)["blocks.0.mixer.key"]
    assert int(scales.argmax()) == 5 and scales[5] > 20 * scales.median()
