"""`llmtutor export`, as it is typed: each format, what goes back, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from llmtutor import cli
from llmtutor.cli.export import FORMATS, read
from llmtutor.data import tales
from llmtutor.interop.gguf import load_gguf, load_gguf_tokenizer, read_container
from llmtutor.interop.hf import HFTokenizer, load_hf_with_tokenizer
from llmtutor.interop.llama2c import load_llama2c

MODEL = {"n_layers": 1, "d_model": 32, "n_heads": 2, "d_ff": 64}
IDS = torch.arange(20)[None]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two short runs on tales: ``pairs`` with byte pairs, ``chars`` with characters."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = folder / "mine.txt"
    corpus.write_bytes("<|endoftext|>".join(tales.generate(20, 1)).encode("utf-8"))
    config = {"corpus": str(corpus), "seq_len": 64, "batch_size": 2, "steps": 2, "model": MODEL}
    config |= {"eval_tokens": 50, "device": "cpu", "preset": "llama-nano"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMTUTOR_DATA", str(folder / "data"))
        for name, tokenizer in (("pairs", "bpe-300"), ("chars", "char")):
            path = folder / f"{name}.json"
            path.write_text(json.dumps(config | {"tokenizer": tokenizer}), encoding="utf-8")
            assert cli.main(["train", "--config", str(path), "--out", str(folder / name)]) == 0
    return folder


def exported(*words: object) -> int:
    return cli.main(["export", *map(str, words)])


def refused(capsys, *words: object) -> str:
    capsys.readouterr()
    assert exported(*words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("llmtutor: ")
    return error


def test_each_format_holds_the_model_and_its_tokenizer(runs, tmp_path, capsys) -> None:
    model, tokenizer = read(runs / "pairs")
    for to in FORMATS:
        assert exported(runs / "pairs", "--to", to, "--out", tmp_path / to) == 0
        said = capsys.readouterr().out.splitlines()
        files = sorted((tmp_path / to).iterdir()) if FORMATS[to].folder else [tmp_path / to]
        assert [line.split(": ")[0] for line in said[-len(files) :]] == list(map(str, files))
    wanted, text = model(IDS), "Once upon a time."
    hub = load_hf_with_tokenizer(tmp_path / "hf")
    assert hub.stop == {tokenizer.special_tokens["<|endoftext|>"]}
    gguf = load_gguf(tmp_path / "gguf"), load_gguf_tokenizer(tmp_path / "gguf")
    for again, words in ((hub.model, hub.tokenizer), gguf):
        torch.testing.assert_close(again(IDS), wanted, atol=1e-5, rtol=0)
        assert words.encode(text) == tokenizer.encode(text)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    assert HFTokenizer.load(tmp_path / "onnx").encode(text) == tokenizer.encode(text)
    given = {"ids": IDS.numpy()}
    given |= {one.name: np.zeros((1, 2, 0, 16), np.float32) for one in session.get_inputs()[1:]}
    logits = torch.from_numpy(session.run(["logits"], given)[0])
    torch.testing.assert_close(logits, wanted.detach(), atol=1e-5, rtol=0)
    again = load_llama2c(tmp_path / "llama2c" / "model.bin")
    torch.testing.assert_close(again(IDS), wanted, atol=1e-5, rtol=0)


def test_it_goes_on_from_what_was_exported(runs, tmp_path) -> None:
    """From a folder of Hugging Face to a GGUF file of the same bytes, and back from there."""
    steps = [(runs / "pairs", "hf"), (tmp_path / "1", "gguf"), (tmp_path / "2", "hf")]
    for i, (source, to) in enumerate(steps, 1):
        assert exported(source, "--to", to, "--out", tmp_path / str(i)) == 0
    assert exported(runs / "pairs", "--to", "gguf", "--out", tmp_path / "once") == 0
    assert (tmp_path / "once").read_bytes() == (tmp_path / "2").read_bytes()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_numbers_are_kept_as_asked_for(runs, tmp_path, capsys) -> None:
    sizes = []
    for dtype in FORMATS["gguf"].dtypes:
        out = tmp_path / f"{dtype}.gguf"
        assert exported(runs / "pairs", "--to", "gguf", "--out", out, "--dtype", dtype) == 0
        assert read_container(out).tensors["token_embd.weight"].dtype == dtype
        sizes.append(out.stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    half = tmp_path / "half"
    assert exported(runs / "pairs", "--to", "hf", "--dtype", "f16", "--out", half) == 0
    assert load_hf_with_tokenizer(half).model.embedding.weight.dtype == torch.float16
    error = refused(capsys, runs / "pairs", "--to", "hf", "--out", half, "--dtype", "q8_0")
    assert "unknown dtype of hf 'q8_0'; did you mean" in error


def test_mistakes_are_said_and_nothing_is_written(runs, tmp_path, capsys) -> None:
    pairs, out = runs / "pairs", tmp_path / "out"
    assert "unknown format 'guff'; did you mean 'gguf'" in refused(
        capsys, pairs, "--to", "guff", "--out", out
    )
    error = refused(capsys, runs / "chars", "--to", "gguf", "--out", out)
    assert "GGUF has no form for a CharTokenizer" in error
    error = refused(capsys, tmp_path, "--to", "hf", "--out", out)
    assert "expected the folder of a training run" in error
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\3\0")
    assert "broken.gguf" in refused(capsys, tmp_path / "broken.gguf", "--to", "hf", "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]
    out.write_text("mine")
    for to in FORMATS:
        assert f"{out} is there already" in refused(capsys, pairs, "--to", to, "--out", out)
    error = refused(capsys, pairs, "--to", "hf", "--out", out, "--overwrite")
    assert "hf is written as a folder, found a file there" in error
    assert out.read_text() == "mine"
    assert exported(pairs, "--to", "gguf", "--out", out, "--overwrite") == 0
    assert read_container(out).facts["general.architecture"] == "llama"
    inside = out / "below"
    for to in FORMATS:
        assert "out" in refused(capsys, pairs, "--to", to, "--out", inside)


def test_a_folder_is_replaced_file_by_file_or_not_at_all(runs, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert exported(runs / "chars", "--to", "llama2c", "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["chars.json", "model.bin"]
    before = (out / "model.bin").read_bytes()
    refused(capsys, runs / "pairs", "--to", "llama2c", "--out", out)
    assert (out / "model.bin").read_bytes() == before
    assert exported(runs / "pairs", "--to", "llama2c", "--out", out, "--overwrite") == 0
    assert (out / "model.bin").read_bytes() != before
    assert "llama2.c has no tokenizer of this kind" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
