"""`llmtutor train`, as it is typed: options from the settings, files, resuming, mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from llmtutor import cli
from llmtutor.cli import train as command
from llmtutor.data import tales
from llmtutor.train.config import TrainConfig
from llmtutor.train.loop import Interrupted
from llmtutor.train.state import load_latest


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A configuration file of a tiny run; writes it with some values changed."""
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    corpus = tmp_path / "mine.txt"
    corpus.write_bytes("<|endoftext|>".join(tales.generate(30, 1)).encode("utf-8"))
    model = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32}
    values = {"corpus": str(corpus), "model": model, "seq_len": 16, "batch_size": 4, "steps": 4}
    values |= {"eval_tokens": 50, "out": str(tmp_path / "run"), "device": "cpu"}

    def write(**changes) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(values | changes), encoding="utf-8")
        return str(path)

    return write


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = cli.main(["train", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def asked(monkeypatch, *words: object) -> tuple[TrainConfig, dict]:
    """What a command line asks for, without doing it."""
    calls: list = []
    monkeypatch.setattr(
        command, "train_model", lambda config, **how: calls.append((config, how)) or _Stop()
    )
    assert cli.main(["train", *map(str, words)]) == 0
    return calls[0]


class _Stop:
    class world:  # noqa: N801
        is_main = False


def test_every_field_is_an_option_with_its_text(capsys) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for field in fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')}" in out
    for word in ("--config", "--resume", "--fallback", "--with-changes", "torchrun"):
        assert word in out
    assert "Peak learning rate." in out and "Folder of a run" in out


def test_options_become_settings(monkeypatch) -> None:
    config, how = asked(
        monkeypatch,
        *("--preset", "llama-nano", "--lr", "3e-4", "--steps=7", "--compile"),
        *("--model.n-layers", "2", "--model.rope-base=5e4", "--model.norm", "layernorm"),
        *("--model.bias", "false"),
    )
    model = {"n_layers": 2, "rope_base": 5e4, "norm": "layernorm", "bias": False}
    assert config == TrainConfig(preset="llama-nano", lr=3e-4, steps=7, compile=True, model=model)
    assert how == {"resume": None, "fallback": False, "with_changes": False}
    assert asked(monkeypatch)[0] == TrainConfig()


def test_a_file_gives_options_and_the_command_line_wins(monkeypatch, file) -> None:
    path = file(lr=0.5, clip=None, loggers=["wandb"])
    config, _ = asked(monkeypatch, "--config", path, "--steps", "9", "--model.n-layers", 3)
    assert (config.lr, config.clip, config.loggers, config.steps) == (0.5, None, ("wandb",), 9)
    assert config.model["n_layers"] == 3


def test_no_setting_of_a_file_is_passed_over(monkeypatch, file, tmp_path: Path) -> None:
    """Also those that are called like another command of ``llmtutor``."""
    other = TrainConfig(
        preset="gpt2-nano",
        model={"n_layers": 1},
        corpus="tales",
        tokenizer="bpe-300",
        seq_len=16,
        batch_size=6,
        accumulate=2,
        steps=7,
        optimizer="muon",
        lr=0.5,
        schedule="wsd",
        warmup=2,
        decay=3,
        final_lr=0.2,
        weight_decay=0.3,
        clip=None,
        precision="bfloat16",
        compile=True,
        device="cpu",
        strategy="fsdp",
        seed=4,
        eval_every=5,
        eval_tokens=40,
        save_every=3,
        keep=9,
        loggers=("wandb",),
        fast=("keep-memory",),
        out=str(tmp_path / "other"),
    )
    default = TrainConfig()
    assert not [f.name for f in fields(other) if getattr(other, f.name) == getattr(default, f.name)]
    path = tmp_path / "all.json"
    path.write_text(other.to_json(), encoding="utf-8")
    assert asked(monkeypatch, "--config", path)[0] == other


def test_a_run_goes_on_with_its_own_tokenizer(capsys, file, tmp_path: Path) -> None:
    code, out, err = run(capsys, "--config", file(tokenizer="bpe-300"))
    assert code == 0, err
    assert load_latest(tmp_path / "run" / "checkpoints").config["tokenizer"] == "bpe-300"
    code, again, err = run(capsys, "--resume", tmp_path / "run")
    assert (code, again) == (0, out), err


def test_train_and_resume(capsys, file, tmp_path: Path) -> None:
    path = file()
    code, out, err = run(capsys, "--config", path)
    assert code == 0, err
    assert out.startswith(f"{tmp_path / 'run'}: 4 steps, 256 tokens, validation loss ")
    assert "perplexity" in out
    code, again, err = run(capsys, "--resume", tmp_path / "run")
    assert (code, again) == (0, out), err
    code, again, err = run(capsys, "--config", path, "--resume")
    assert (code, again) == (0, out), err
    code, _, err = run(capsys, "--resume", tmp_path / "run", "--lr", "0.5")
    assert code == 1 and "lr: 0.001 → 0.5" in err
    code, out, err = run(capsys, "--resume", tmp_path / "run", "--steps", "6", "--with-changes")
    assert code == 0 and "steps: 4 → 6" in err and ": 6 steps" in out
    assert load_latest(tmp_path / "run" / "checkpoints").step == 6


def test_a_folder_may_be_called_like_a_yes_or_no(monkeypatch, capsys, file, tmp_path: Path) -> None:
    run(capsys, "--config", file(out=str(tmp_path / "f")))
    monkeypatch.chdir(tmp_path)
    assert asked(monkeypatch, "--resume", "f")[1]["resume"] == Path("f")


def test_resume_says_which_folder_and_how(monkeypatch, capsys, file, tmp_path: Path) -> None:
    run(capsys, "--config", file())
    config, how = asked(monkeypatch, "--resume", tmp_path / "run", "--fallback", "--keep", "7")
    assert how == {"resume": tmp_path / "run", "fallback": True, "with_changes": False}
    assert config.steps == 4 and config.keep == 7 and config.out == str(tmp_path / "run")
    chosen = tmp_path / "run" / "checkpoints" / "step-00000004"
    config, how = asked(monkeypatch, "--resume", chosen)
    assert how["resume"] == chosen and config.out == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"stepz": 3}, [], "config.json: unknown field 'stepz'; did you mean 'steps'"),
        ({}, ["--optimizer", "adam"], "did you mean 'adamw'"),
        ({}, ["--model.n-layer", "2"], "did you mean 'n_layers'"),
        ({}, ["--corpus", "shakespear"], "did you mean 'shakespeare'"),
        ({}, ["--seq-len", "9999"], "do not fit into the"),
        ({}, ["--batch-size", "5000"], "larger than the training text"),
        ({}, ["--resume", "nowhere"], "nowhere: expected a checkpoint"),
    ],
)
def test_a_mistake_is_one_line(capsys, file, changes, words, message) -> None:
    config = [] if words[:1] == ["--resume"] else ["--config", file(**changes)]
    code, out, err = run(capsys, *config, *words)
    assert (code, out) == (1, "")
    assert err.startswith("llmtutor: ") and err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    ("words", "nearest"), [(["--lrr", "1"], "--lr"), (["--batch-sise=3"], "--batch-size")]
)
def test_an_unknown_option_gets_the_nearest(capsys, words, nearest) -> None:
    with pytest.raises(SystemExit) as stop:
        run(capsys, *words)
    assert stop.value.code != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Unknown option" in said and f"Did you mean {nearest}?" in said


def test_a_stopped_run_ends_with_130(capsys, monkeypatch) -> None:
    def interrupted(*_, **__):
        raise Interrupted("stopped after step 3. go on with …")

    monkeypatch.setattr(command, "train_model", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "llmtutor: stopped after step 3. go on with …\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_python_m_llmtutor_train_and_ctrl_c(file, tmp_path: Path) -> None:
    """The whole, as a person would do it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llmtutor", "train", "--config", file(steps=9999)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size > 500) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert last.startswith("llmtutor: stopped after step ")
    assert last.endswith(f"go on with: llmtutor train --resume {tmp_path / 'run'}")
