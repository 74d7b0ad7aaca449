"""`llmtutor quantize`: a run and a folder of the hub in fewer bits, which then write; mistakes."""

import json
from pathlib import Path

import pytest
import torch

from llmtutor import cli
from llmtutor.data import tales
from llmtutor.interop.hf import save_hf
from llmtutor.model.presets import build, preset
from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.fast import to_tokenizers

MODEL = {"n_layers": 1, "d_model": 32, "n_heads": 2, "d_ff": 48}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    path.write_bytes("\n".join(tales.generate(40, 1)).encode("utf-8"))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, text) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = {"corpus": str(text), "seq_len": 32, "batch_size": 4, "steps": 20, "lr": 0.01}
    config |= {"eval_tokens": 50, "device": "cpu", "model": MODEL, "out": str(folder / "run")}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMTUTOR_DATA", str(folder / "data"))
        assert cli.main(["train", "--config", str(folder / "config.json")]) == 0
    return folder / "run"


@pytest.fixture
def run(capsys):
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([*map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("scheme", ["int8", "gptq"])
def test_a_run_in_fewer_bits_writes_on(run, trained, text, tmp_path: Path, scheme: str) -> None:
    out = tmp_path / "small"
    code, said, error = run("quantize", trained, "--scheme", scheme, "--out", out, "--text", text)
    assert code == 0, error
    lines = said.splitlines()
    assert lines[0].startswith(f"{scheme}: 9 matrices, {8 if scheme == 'int8' else 4}.")
    before, after = (
        int(word.replace(",", "")) for word in (lines[1].split()[1], lines[1].split()[4])
    )
    assert after < before * {"int8": 0.31, "gptq": 0.2}[scheme]
    losses = [float(word.strip(",")) for word in lines[2].split() if word[0].isdigit()]
    assert abs(losses[1] - losses[0]) < {"int8": 0.01, "gptq": 0.3}[scheme]
    code, written, error = run(
        "generate", out, "--prompt", "Once", "--max-new-tokens", 5, "--greedy"
    )
    assert code == 0 and len(written) > 5, error
    if scheme == "int8":
        same = run("generate", trained, "--prompt", "Once", "--max-new-tokens", 5, "--greedy")[1]
        assert written == same
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_folder_of_the_hub(run, tmp_path: Path) -> None:
    hub, out = tmp_path / "hub", tmp_path / "small"
    tokenizer = BPETokenizer.train(tales.generate(30, 1), 300, ["<|endoftext|>"])
    torch.manual_seed(0)
    save_hf(build(preset("llama-nano", **MODEL, vocab_size=320, max_seq_len=64)), hub)
    to_tokenizers(tokenizer).save(str(hub / "tokenizer.json"))
    assert run("quantize", hub, "--scheme", "nf4", "--out", out)[0] == 0
    code, written, error = run("generate", out, "--prompt", "Once", "--max-new-tokens", 5)
    assert code == 0 and written, error


def test_mistakes(run, trained, text, tmp_path: Path) -> None:
    out = tmp_path / "small"
    short = tmp_path / "short.txt"
    short.write_text("Once", encoding="utf-8")
    for words, message in (
        ((trained, "--scheme", "int5"), "unknown scheme 'int5'; did you mean 'int"),
        ((trained, "--scheme", "gptq"), "gptq rounds for a text: give one with --text FILE"),
        ((tmp_path / "none", "--scheme", "int8"), "none: expected the folder of a run or of"),
        ((tmp_path, "--scheme", "int8"), "no checkpoints in it"),
        ((trained, "--scheme", "int8", "--text", short), "expected at least 33 and 2"),
        ((trained, "--scheme", "int8", "--text", tmp_path / "no.txt"), "no.txt"),
        ((trained, "--scheme", "gptq", "--text", text, "--windows", 0), "windows must be at least"),
    ):
        code, _, error = run("quantize", *words, "--out", out)
        assert code == 1 and message in error, error
    code, _, error = run("quantize", trained, "--scheme", "int8", "--out", tmp_path)
    assert code == 1 and "is there already" in error
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]
