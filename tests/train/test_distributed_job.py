"""A whole job, started the way a reader starts it: torchrun, two ranks, one of which is killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llmtutor.train.distributed import World, check_batch_size

STEPS, SAVE_EVERY = 240, 40
PATIENCE = 150  # seconds until the first steps, on a machine that is busy with other things
MODEL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 24}


def job(folder: Path, *options: str) -> list[str]:
    settings = {"corpus": str(folder / "text.txt"), "seq_len": 16, "batch_size": 8, "accumulate": 2}
    settings |= {"steps": STEPS, "save_every": SAVE_EVERY, "eval_every": STEPS, "lr": 0.01}
    settings |= {"device": "cpu", "model": MODEL, "preset": "llama-nano", "eval_tokens": 400}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return [*torchrun, "-m", "llmtutor", "train", *options]


def finish(command: list[str], **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        timeout=2 * PATIENCE,
        check=False,
        **settings,
    )


def curve(out: Path) -> dict[int, tuple[float, float]]:
    """Loss and norm of the gradient by step, from the log; a last line may be half-written."""
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {r["step"]: (r["loss"], r["grad_norm"]) for r in records if "loss" in r}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    words = ["king", "queen", "crown", "and", "the", "of", "a", "fool"]
    text = " ".join(words[i * i * 7 % 11 % 8] for i in range(4000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> Path:
    """A run of two ranks that nobody disturbs."""
    command = job(folder, "--config", str(folder / "config.json"), "--out", str(folder / "whole"))
    done = finish(command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.strip().splitlines()) == 1  # rank 0 alone says how it went
    assert f"{STEPS:,} steps" in done.stdout
    return folder / "whole"


def kill_rank_1(torchrun: subprocess.Popen) -> None:
    for process in psutil.Process(torchrun.pid).children(recursive=True):
        if process.environ().get("RANK") == "1":
            process.kill()
            return
    raise AssertionError("there is no rank 1")


def test_killed_rank_ends_the_job_and_resuming_gives_the_same_curve(folder, whole):
    out = folder / "killed"
    command = job(folder, "--config", str(folder / "config.json"), "--out", str(out))
    command += ["--strategy", "fsdp"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
    ) as torchrun:
        end = time.monotonic() + PATIENCE
        while not (out / "log.jsonl").exists() or len(curve(out)) < SAVE_EVERY + 5:
            assert torchrun.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        kill_rank_1(torchrun)
        began = time.monotonic()
        _, said = torchrun.communicate(timeout=PATIENCE)
    assert torchrun.returncode != 0
    assert time.monotonic() - began < 60
    assert "Signal 9 (SIGKILL)" in said or "another rank has died" in said
    before = curve(out)
    assert SAVE_EVERY < max(before) < STEPS

    done = finish(job(folder, "--resume", str(out)))
    assert done.returncode == 0, done.stderr[-3000:]
    after = curve(out)
    assert sorted(after) == list(range(1, STEPS + 1))
    again = {step: after[step] for step in before}
    assert again == before  # also the steps that were taken twice: to the last bit
    for step, values in curve(whole).items():
        assert after[step] == pytest.approx(values, rel=1e-3), step


def test_batch_that_two_ranks_cannot_share_is_refused(folder):
    with pytest.raises(ValueError, match="a batch of 3 sequences"):
        check_batch_size(3, World(0, 2))
    out = folder / "refused"
    command = job(folder, "--batch-size", "3", "--out", str(out), "--device", "cpu")
    done = finish(command, env=os.environ | {"LLMTUTOR_CORPUS": "shakespeare"})
    assert done.returncode != 0 and not out.exists()
    assert "a batch of 3 sequences cannot be shared equally by 2 processes" in done.stderr
