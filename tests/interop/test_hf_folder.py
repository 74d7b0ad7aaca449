"""The files of a folder: one or several, older names, damage, and what a failed save leaves."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmtutor.interop.hf import load_hf, read_config, save_hf, state_from_hf, state_to_hf
from llmtutor.interop.hf.folder import CONFIG, INDEX, WEIGHTS
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

SIZES = {"vocab_size": 19, "max_seq_len": 16, "n_layers": 2, "d_model": 16, "n_heads": 2}


def model_of(name: str) -> Transformer:
    return build(preset(name, **SIZES, d_ff=24))


def saved(folder: Path, name: str = "gpt2-nano", **options) -> Transformer:
    model = model_of(name)
    save_hf(model, folder, **options)
    return model


def same_bits(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def refused(folder: Path, *parts: str, error: type[Exception] = ValueError, **options) -> None:
    with pytest.raises(error) as raised:
        load_hf(folder, **options)
    assert all(part in str(raised.value) for part in (str(folder), *parts)), raised.value


# What is kept -------------------------------------------------------------------------------------


def test_what_is_loaded_is_free_to_be_trained(tmp_path) -> None:
    saved(tmp_path)
    model = load_hf(tmp_path)
    assert model.head.weight is model.embedding.weight
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_file_that_changes_afterwards_changes_no_model(tmp_path) -> None:
    written = saved(tmp_path)
    model = load_hf(tmp_path)
    path = tmp_path / WEIGHTS
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert same_bits(model, written)


def test_several_files_with_an_index(tmp_path) -> None:
    theirs = pytest.importorskip("transformers.models.llama").LlamaForCausalLM
    save_hf(model_of("llama-nano"), tmp_path)  # one file, which the next save has to take away
    model = saved(tmp_path, "llama-nano", max_file_bytes=3000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert same_bits(load_hf(tmp_path), model)
    other, report = theirs.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    other.save_pretrained(tmp_path / "theirs", max_shard_size="3KB")
    assert (tmp_path / "theirs" / INDEX).exists()
    assert same_bits(load_hf(tmp_path / "theirs"), model)
    with pytest.raises(ValueError, match="max_file_bytes must be at least 1, got 0"):
        save_hf(model, tmp_path, max_file_bytes=0)


def test_dtype_is_kept_or_converted(tmp_path) -> None:
    model = model_of("llama-nano").bfloat16()
    save_hf(model, tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text("utf-8"))["dtype"] == "bfloat16"
    assert same_bits(load_hf(tmp_path), model)
    wide = load_hf(tmp_path, dtype=torch.float32)
    assert torch.equal(wide.head.weight, model.head.weight.float())
    state = load_file(tmp_path / WEIGHTS)
    save_file({**state, "lm_head.weight": state["lm_head.weight"].float()}, tmp_path / WEIGHTS)
    refused(tmp_path, "mixes torch.bfloat16, torch.float32; say which dtype")
    load_hf(tmp_path, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"dtype must be one of .*, got torch\.int64"):
        load_hf(tmp_path, dtype=torch.int64)


def test_names_and_masks_of_older_files(tmp_path) -> None:
    """GPT-2 as first published: no prefix, masks among the weights, the tied matrix twice."""
    model = saved(tmp_path)
    path = tmp_path / WEIGHTS
    state = {n.removeprefix("transformer."): w for n, w in load_file(path).items()}
    state |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.ones(1)}
    save_file({**state, "lm_head.weight": state["wte.weight"].clone()}, path)
    assert same_bits(load_hf(tmp_path), model)
    save_file({**state, "lm_head.weight": state["wte.weight"] + 1}, path)
    refused(tmp_path, "tie_word_embeddings is true but lm_head.weight is not")


def test_frequencies_of_older_files(tmp_path) -> None:
    model = saved(tmp_path, "llama-nano")
    path = tmp_path / WEIGHTS
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    save_file({**load_file(path), name: torch.ones(4)}, path)
    assert same_bits(load_hf(tmp_path), model)


def test_state_keeps_its_own_memory() -> None:
    """What goes out are tensors of their own layout: editing a file's tensors is no hidden link."""
    model = model_of("gpt2-nano")
    state = state_to_hf(model.state_dict(), model.config)
    back = state_from_hf(state, model.config)
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    assert all(value.is_contiguous() for value in [*state.values(), *back.values()])


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch) -> None:
    model = saved(tmp_path, "llama-nano")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(state, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("llmtutor.interop.hf.folder.save_file", full)
    for options in ({}, {"max_file_bytes": 3000}):
        with pytest.raises(OSError, match="no space left"):
            save_hf(model, tmp_path, **options)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_no_family_has_is_not_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="no family of Hugging Face that we write"):
        save_hf(build(preset("baseline-nano", **SIZES, d_ff=24)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# What is refused ----------------------------------------------------------------------------------


def test_folders_that_are_none(tmp_path) -> None:
    refused(tmp_path, "found no config.json in it", error=FileNotFoundError)
    refused(
        tmp_path / "gpt2",
        "found no such folder; a model of the hub has to be downloaded",
        error=FileNotFoundError,
    )
    saved(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pytorch_model.bin is a pickle", error=FileNotFoundError)
    assert read_config(tmp_path).n_layers == 2  # which needs no weights


BROKEN = {
    "cut short": lambda text: text[:-10],
    "a list": lambda text: b"[]",
    "nothing": lambda text: b"",
    "no text": lambda text: b"\xff\xfe" + text,
    "a key twice": lambda text: text.replace(b"{", b'{"n_head": 2,', 1),
    "nested without end": lambda text: 100_000 * b"[",
}


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("file", [CONFIG, INDEX])
def test_broken_json_is_refused_by_file(tmp_path, file, damage) -> None:
    saved(tmp_path, max_file_bytes=3000)
    path = tmp_path / file
    text = path.read_bytes()
    if damage == "a key twice" and file == INDEX:
        text = text.replace(b'"weight_map": {', b'"weight_map": {"x": "y", "x": "y",')
        path.write_bytes(text)
    else:
        path.write_bytes(BROKEN[damage](text))
    refused(tmp_path, file)


@pytest.mark.parametrize("n_bytes", [0, 4, 8, 100, -100])
def test_a_truncated_file_is_refused(tmp_path, n_bytes) -> None:
    saved(tmp_path)
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:n_bytes])
    refused(tmp_path, WEIGHTS, "is not a whole safetensors file", "fetch it again")


def test_an_index_that_says_something_else_than_the_files(tmp_path) -> None:
    saved(tmp_path, max_file_bytes=3000)
    index = json.loads((tmp_path / INDEX).read_text("utf-8"))
    names = index["weight_map"]
    first, second = min(names), max(names)
    file = names[first]
    for value, message in (
        ("../elsewhere.safetensors", "expected the name of a file in its folder"),
        (5, f"{first} = 5; expected the name of a file"),
        (None, "expected the name of a file"),
        ("", "expected the name of a file"),
    ):
        edit(tmp_path / INDEX, weight_map={**names, first: value})
        refused(tmp_path, INDEX, message)
    for value in (None, [], "x"):
        edit(tmp_path / INDEX, weight_map=value)
        refused(tmp_path, f"{INDEX} has weight_map = ")
    edit(tmp_path / INDEX, weight_map={**names, second: file})
    refused(tmp_path, f"says that {second} is in {file}, which it is not: fetch both again")
    edit(tmp_path / INDEX, weight_map=names)
    (tmp_path / file).rename(tmp_path / "away")
    refused(tmp_path, f"names {file}, which is not there: fetch it again", error=FileNotFoundError)
    (tmp_path / "away").rename(tmp_path / file)
    twice = {**load_file(tmp_path / names[second]), **load_file(tmp_path / file)}
    save_file(twice, tmp_path / names[second])
    refused(tmp_path, " and in a file before it")


def test_names_shapes_and_types_must_fit(tmp_path) -> None:
    saved(tmp_path)
    path = tmp_path / WEIGHTS
    state = load_file(path)
    name = "transformer.h.0.attn.c_attn.weight"
    rest = {key: value for key, value in state.items() if key != name}
    save_file({**rest, name.replace("attn.w", "atn.w"): state[name]}, path)
    refused(tmp_path, f"missing {name}", "unexpected transformer.h.0.attn.c_atn.weight")
    for wrong in (state[name].int(), state[name].to(torch.float8_e4m3fn), state[name].bool()):
        save_file({**rest, name: wrong}, path)
        refused(tmp_path, f"{name} is {wrong.dtype}", "have to be converted first")
        refused(tmp_path, f"{name} is {wrong.dtype}", dtype=torch.float32)
    for wrong in (
        state[name].T.contiguous(),
        state[name][:, :-1].contiguous(),
        state[name][0, 0],
        state[name][None].contiguous(),
    ):
        save_file({**rest, name: wrong.clone()}, path)
        refused(tmp_path, "shape")
    save_file(state, path)
    edit(tmp_path / CONFIG, n_positions=63)
    refused(tmp_path, "position.weight has shape (16, 16)", "asks for (63, 16)")


@pytest.mark.parametrize("key", ["vocab_size", "n_positions", "n_embd", "n_layer", "n_inner"])
def test_sizes_that_no_memory_has_are_refused_before_any_is_taken(tmp_path, key) -> None:
    saved(tmp_path)
    edit(tmp_path / CONFIG, **{key: 2**20})
    refused(tmp_path)
    edit(tmp_path / CONFIG, **{key: 10**30})
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / CONFIG} has {key} = 1000")):
        load_hf(tmp_path)
