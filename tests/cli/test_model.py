"""`llmtutor model`: names, folders of both kinds, numbers for programs, mistakes."""

import json
from pathlib import Path

import pytest

from llmtutor import cli
from llmtutor.cli.model import find
from llmtutor.data import tales
from llmtutor.interop.hf import save_hf
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, PUBLISHED, build, preset


@pytest.fixture
def run(capsys):
    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main(["model", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_list_has_a_line_for_each_name(run) -> None:
    code, out, _ = run("list")
    heading, *lines = out.splitlines()
    assert code == 0 and heading.split()[0] == "NAME"
    assert [line.split()[0] for line in lines] == list({**PRESETS, **PUBLISHED})
    assert any("2,614,341,888  13 × (1 × window 4,096, 1 × full)" in line for line in lines)


def test_show_draws_the_stack_and_counts(run) -> None:
    code, out, _ = run("show", "gemma3-1b")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0 and lines["model"] == "gemma3-1b"
    window, full = "window 512 (base 10,000)", "full (base 1,000,000)"
    assert lines["blocks"] == f"4 × (5 × {window}, 1 × {full}), 2 × {window}"
    assert lines["parameters"] == "999,885,952"
    assert lines["cache"] == "26 KiB for the first token, 139 MiB for 32,768 tokens (bfloat16)"
    assert lines["context"] == "32,768 tokens" and lines["FLOPs"].startswith("2G for the first")


def test_numbers_for_programs(run) -> None:
    code, out, _ = run("show", "mistral-7b", "--json")
    known = json.loads(out)
    assert code == 0 and known["parameters"] == {"total": 7_241_732_096, "active": 7_241_732_096}
    assert ModelConfig.from_dict(known["config"]) == PUBLISHED["mistral-7b"]
    # 32 layers of 2 · 8 · 128 numbers of 2 bytes; no more than 4,096 tokens stay.
    assert known["cache_bytes"] == {"dtype": "bfloat16", "first": 131_072, "context": 2**29}


def test_a_folder_of_hugging_face_needs_no_weights(run, tmp_path: Path) -> None:
    config = preset("llama-nano", window=8)
    save_hf(build(config), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert find(str(tmp_path)) == config
    assert "window 8" in run("show", tmp_path)[1]
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    code, out, err = run("show", tmp_path)
    assert (code, out) == (1, "") and "config.json has model_type = 'bert'" in err


def test_a_training_run(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    corpus = tmp_path / "mine.txt"
    corpus.write_bytes("<|endoftext|>".join(tales.generate(30, 1)).encode("utf-8"))
    model = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32}
    values = {"corpus": str(corpus), "seq_len": 64, "batch_size": 4, "steps": 1, "model": model}
    values |= {"out": str(tmp_path / "run"), "eval_tokens": 50, "device": "cpu"}
    (tmp_path / "run.json").write_text(json.dumps(values), "utf-8")
    assert cli.main(["train", "--config", str(tmp_path / "run.json")]) == 0
    code, out, _ = run("show", tmp_path / "run")
    assert code == 0 and "blocks      2 × block" in out and "64 tokens" in out
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert find(str(checkpoint)) == find(str(tmp_path / "run"))


def test_mistakes_end_in_one_line(run, tmp_path: Path) -> None:
    for words, message in (
        (["gemma4"], "did you mean 'gemma3-1b'"),
        ([tmp_path], "found neither"),
        ([tmp_path / "none"], "unknown model or folder"),
    ):
        code, out, err = run("show", *words)
        assert (code, out) == (1, "") and message in err
        assert err.startswith("llmtutor: ") and err.count("\n") == 1
