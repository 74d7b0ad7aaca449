"""Runs that are killed, interrupted, starved of disk or led astray, and what is left of them."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from llmtutor.fast.compiling import losses_to_compile
from llmtutor.layers.ffn import GatedMLP
from llmtutor.train import loop
from llmtutor.train.config import TrainConfig
from llmtutor.train.folder import read_config, run_folder
from llmtutor.train.log import read_log
from llmtutor.train.loop import Interrupted, stop_on_signal, train
from llmtutor.train.state import CheckpointError, checkpoints, load_checkpoint, load_latest
from llmtutor.train.step import NonFiniteLoss

# A process that trains whatever it is told to on standard input, each time in a fork of its own,
# so that torch is loaded once. Writing is slow in it, so that a kill can fall into that; the
# program knows nothing of it.
TRAINER = textwrap.dedent(
    """
    import os, sys, time, traceback
    from pathlib import Path
    from llmtutor.train.config import TrainConfig
    from llmtutor.train.loop import Interrupted, train

    def slow(function, seconds):
        def late(*args):
            time.sleep(seconds)
            return function(*args)
        return late

    def work(seconds, config):
        os.fsync, os.replace = slow(os.fsync, seconds), slow(os.replace, seconds)
        out = Path(config.out)
        try:
            train(config, resume=out if out.exists() else None, quiet=True)
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            return 130
        return 0

    for line in sys.stdin:
        seconds, settings = line.split(" ", 1)
        pid = os.fork()
        if pid == 0:
            try:
                code = work(float(seconds), TrainConfig.from_json(settings))
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stderr.flush()
            os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    """
)


class Trainer:
    """Starts runs, one after the other, and tells how they ended."""

    def __init__(self, folder: Path) -> None:
        self.errors = folder / "stderr.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-c", TRAINER],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w", encoding="utf-8"),
            text=True,
            encoding="utf-8",
        )

    def start(self, config: TrainConfig, slow: float = 0.0) -> int:
        """Train, or resume what is in the folder; returns the process id."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{slow} {' '.join(config.to_json().split())}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline() or pytest.fail(self.said()))

    def end(self) -> int:
        """Wait for the run; its exit code, or minus the signal that killed it."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def said(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def wait_for(self, happened) -> None:
        deadline = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.002)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def trainer(tmp_path: Path):
    trainer = Trainer(tmp_path)
    yield trainer
    trainer.close()


no_fork = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork and no SIGKILL")


def losses(config) -> list[tuple[str, int, float]]:
    """All losses in the log with every digit; asserts that each step is there once, in order."""
    records = read_log(Path(config.out) / "log.jsonl")
    steps = [r["step"] for r in records if "loss" in r]
    assert steps == list(range(1, config.steps + 1))
    return [(k, r["step"], r[k]) for r in records for k in ("loss", "valid_loss") if k in r]


def equal(one, two) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return set(one) == set(two) and all(equal(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


@no_fork
def test_ten_kills_leave_no_trace(tiny, tmp_path: Path, trainer: Trainer) -> None:
    """Must be the same to the bit: weights, moments, generators, every loss."""
    shape = {"steps": 60, "save_every": 2, "eval_every": 2, "optimizer": "muon", "keep": 3}
    smooth = tiny(**shape, out=str(tmp_path / "smooth"))
    rough = tiny(**shape, out=str(tmp_path / "rough"))
    folder, log = tmp_path / "rough" / "checkpoints", tmp_path / "rough" / "log.jsonl"
    trainer.start(smooth)
    assert trainer.end() == 0, trainer.said()
    choose = random.Random(11)
    in_writing = 0
    for kill in range(10):
        before = checkpoints(folder)
        pid = trainer.start(rough, slow=0.05)
        # At least one new checkpoint each time, or the run would never end.
        trainer.wait_for(lambda b=before: checkpoints(folder)[-1:] != b[-1:])
        if kill % 2:
            trainer.wait_for(lambda: any(folder.glob(".*.partial")))
            time.sleep(choose.uniform(0, 0.1))  # of about 0.3 s that it takes
        else:
            size = log.stat().st_size
            trainer.wait_for(lambda s=size: log.stat().st_size > s)
            time.sleep(choose.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert trainer.end() == -signal.SIGKILL, trainer.said()
        in_writing += any(folder.glob(".*.partial"))
    assert in_writing >= 3, "too few kills fell into the writing of a checkpoint"
    assert load_latest(folder).step < 60, "the run was over before the last kill"
    trainer.start(rough)
    assert trainer.end() == 0, trainer.said()
    assert losses(rough) == losses(smooth)
    one, two = load_latest(folder), load_latest(tmp_path / "smooth" / "checkpoints")
    for name in ("step", "model", "optimizer", "random", "valid_loss", "n_tokens", "tokenizer"):
        assert equal(getattr(one, name), getattr(two, name)), name
    assert not list(folder.glob(".*")), "a killed process left something behind"


@no_fork
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(tiny, tmp_path: Path, trainer: Trainer, number) -> None:
    config = tiny(steps=9000, save_every=9000, eval_every=9000)
    pid = trainer.start(config)
    log = tmp_path / "run" / "log.jsonl"
    trainer.wait_for(lambda: log.exists() and log.stat().st_size > 500)
    os.kill(pid, number)
    assert trainer.end() == 130, trainer.said()
    state = load_latest(tmp_path / "run" / "checkpoints")
    assert f"stopped after step {state.step}." in trainer.said()
    assert f"llmtutor train --resume {config.out}" in trainer.said()
    assert [r["step"] for r in read_log(log)] == list(range(1, state.step + 1))


@pytest.mark.skipif(sys.platform == "win32", reason="signals to oneself are other ones there")
def test_a_second_ctrl_c_does_not_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_on_signal() as wanted:
        os.kill(os.getpid(), signal.SIGINT)
        assert wanted.wait(1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    with stop_on_signal(patient=True) as wanted:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert wanted.wait(1)
    assert signal.getsignal(signal.SIGINT) is before


# In one process -----------------------------------------------------------------------------------


def stop_after(monkeypatch, step: int) -> None:
    """As if Ctrl-C came in that step."""
    from llmtutor.train import loop

    real = loop.train_step

    def last(*args, **kwargs):
        metrics = real(*args, **kwargs)
        if kwargs["step"] == step:
            signal.raise_signal(signal.SIGINT)
        return metrics

    monkeypatch.setattr(loop, "train_step", last)


def test_a_stop_at_any_step_changes_nothing(tiny, tmp_path: Path, monkeypatch) -> None:
    smooth, rough = tiny(out=str(tmp_path / "a")), tiny(out=str(tmp_path / "b"))
    train(smooth, quiet=True)
    with monkeypatch.context() as context:
        stop_after(context, 7)
        with pytest.raises(Interrupted, match="stopped after step 7"):
            train(rough, quiet=True)
    end = train(rough, resume=Path(rough.out), quiet=True)
    assert end.step == 12 and losses(smooth) == losses(rough)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_in_the_loop_gives_the_same_curve(tiny, tmp_path: Path, accumulate) -> None:
    one, parts = tiny(out=str(tmp_path / "a")), tiny(out=str(tmp_path / "b"), accumulate=accumulate)
    train(one, quiet=True)
    train(parts, quiet=True)
    for (kind, step, x), (_, _, y) in zip(losses(one), losses(parts), strict=True):
        assert x == pytest.approx(y, abs=2e-6), (kind, step)


def test_the_log_shows_the_schedule_and_the_tokens(tiny) -> None:
    config = tiny(steps=12, warmup=3, lr=0.5, optimizer="sgd", final_lr=0.0)
    train(config, quiet=True)
    records = [r for r in read_log(Path(config.out) / "log.jsonl") if "loss" in r]
    factor = config.make_schedule()
    assert [r["lr"] for r in records] == [0.5 * factor(s) for s in range(12)]
    assert [r["n_tokens"] for r in records] == [64 * s for s in range(1, 13)]
    assert all(a["seconds"] < b["seconds"] for a, b in pairwise(records))


def test_training_lowers_the_loss(tiny) -> None:
    config = tiny(steps=60, lr=1e-2, save_every=60, eval_every=60)
    end = train(config, quiet=True)
    curve = [x for kind, _, x in losses(config) if kind == "loss"]
    assert sum(curve[-5:]) < sum(curve[:5]) - 4
    assert end.valid_loss is not None and end.valid_loss < 3.2


@pytest.mark.parametrize(
    "changes", [{"precision": "bfloat16"}, {"clip": None}, {"preset": "gpt2-nano"}]
)
def test_other_settings_run_and_resume(tiny, monkeypatch, changes) -> None:
    config = tiny(steps=4, save_every=2, eval_every=2, **changes)
    train(config, quiet=True)
    end = train(config, resume=Path(config.out), quiet=True)
    assert end.step == 4 and end.valid_loss is not None


def test_compile_gives_the_same_curve(tiny, tmp_path: Path, monkeypatch) -> None:
    """Captured and run operation by operation: to generate code takes minutes and a compiler.

    Names in the checkpoint stay the model's.
    """
    real, compiled = torch.compile, []

    def in_graphs(function, *, dynamic, options):
        compiled.append((function, dynamic, options))
        return real(function, backend="eager")

    monkeypatch.setattr(torch, "compile", in_graphs)
    monkeypatch.setenv("CXX", sys.executable)  # any program: no code is generated
    one = tiny(out=str(tmp_path / "a"), steps=3)
    fused = tiny(out=str(tmp_path / "b"), steps=3, compile=True)
    train(one, quiet=True)
    train(fused, quiet=True)
    for (_, _, x), (_, _, y) in zip(losses(one), losses(fused), strict=True):
        assert x == pytest.approx(y, abs=1e-4)
    saved = [load_latest(Path(c.out) / "checkpoints").model for c in (one, fused)]
    assert set(saved[0]) == set(saved[1])
    assert compiled == [(losses_to_compile, None, {"cpp_wrapper": True})]


def test_compile_without_a_compiler_says_so_and_leaves_nothing(tiny, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = tiny(compile=True)
    with pytest.raises(ValueError, match="there is no 'no-such-compiler'"):
        train(config, quiet=True)
    assert not Path(config.out).exists()


def test_nothing_is_done_for_speed_unless_it_is_named(tiny, tmp_path: Path, monkeypatch) -> None:
    done = []
    real = loop.freed_memory_kept
    monkeypatch.setattr(loop, "freed_memory_kept", lambda: done.append("keep") or real())
    train(tiny(steps=1), quiet=True)
    assert done == []
    out = str(tmp_path / "other")
    train(tiny(steps=1, out=out, fast=["keep-memory"]), quiet=True)
    assert done == ["keep"]


# Resuming -----------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    data = path / "model.safetensors"
    data.write_bytes(data.read_bytes()[:-1])


def test_a_damaged_checkpoint_is_used_by_nobody_and_passed_over_on_request(tiny, capsys) -> None:
    config = tiny()
    train(config, quiet=True)
    whole = losses(config)
    out = Path(config.out)
    damage(out / "checkpoints" / "step-00000012")
    with pytest.raises(CheckpointError, match=r"step-00000012.model\.safetensors"):
        train(config, resume=out, quiet=True)
    train(config, resume=out, fallback=True, quiet=True)
    assert "passed over" in capsys.readouterr().err
    assert losses(config) == whole
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert names == ["step-00000008", "step-00000012", "step-00000012.abandoned"]
    assert load_latest(out / "checkpoints").step == 12


def test_one_checkpoint_may_be_named(tiny, tmp_path: Path) -> None:
    config = tiny()
    train(config, quiet=True)
    chosen = Path(config.out) / "checkpoints" / "step-00000008"
    branch = tiny(out=str(tmp_path / "branch"))
    assert train(branch, resume=chosen, quiet=True).step == 12
    kinds = {(k, s): x for k, s, x in losses(config)}
    new = [r for r in read_log(tmp_path / "branch" / "log.jsonl") if "loss" in r]
    assert [(r["step"], r["loss"]) for r in new] == [(s, kinds["loss", s]) for s in (9, 10, 11, 12)]
    assert load_checkpoint(chosen).step == 8
    assert run_folder(chosen) == Path(config.out) == run_folder(Path(config.out))
    assert read_config(chosen) == config == read_config(Path(config.out))


def test_another_run_is_not_resumed_unasked(tiny, capsys) -> None:
    config = tiny()
    train(config, quiet=True)
    other = tiny(lr=5e-4, model={**config.model, "n_layers": 2}, keep=5)
    with pytest.raises(ValueError, match="another run") as error:
        train(other, resume=Path(config.out), quiet=True)
    assert "\n  lr: 0.001 → 0.0005\n" in str(error.value)
    assert '"n_layers": 1' in str(error.value) and "keep" not in str(error.value)
    with pytest.raises(ValueError, match="the checkpoint is of another model"):
        train(other, resume=Path(config.out), with_changes=True, quiet=True)
    longer = tiny(lr=5e-4, steps=14)
    end = train(longer, resume=Path(config.out), with_changes=True, quiet=True)
    assert "steps: 12 → 14" in capsys.readouterr().err
    assert end.step == 14 and end.optimizer.param_groups[0]["initial_lr"] == 5e-4
    last = read_log(Path(config.out) / "log.jsonl")[-2]
    assert last["lr"] == 5e-4 * longer.make_schedule()(13)


def test_a_run_is_not_overwritten(tiny, tmp_path: Path) -> None:
    config = tiny(steps=2, save_every=2)
    train(config, quiet=True)
    with pytest.raises(ValueError, match="run already: go on with `llmtutor train --resume"):
        train(config, quiet=True)
    other = tiny(steps=2, save_every=2, out=str(tmp_path / "other"))
    train(other, quiet=True)
    with pytest.raises(ValueError, match="holds a run already"):
        train(config, resume=Path(other.out), quiet=True)


# Trouble ------------------------------------------------------------------------------------------


def test_nan_stops_saves_and_says_where(tiny, monkeypatch) -> None:
    config = tiny(steps=20, save_every=20, eval_every=20)
    real, calls = GatedMLP.forward, iter(range(1000))

    def forward(self, x):
        broken = self.training and next(calls) >= 5
        return real(self, x) * (float("nan") if broken else 1.0)

    monkeypatch.setattr(GatedMLP, "forward", forward)
    message = r"step 6: the loss is nan.* layer blocks\.0\.ffn"
    with pytest.raises(NonFiniteLoss, match=message) as e:
        train(config, quiet=True)
    assert f"A checkpoint is saved; go on with: llmtutor train --resume {config.out}" in str(
        e.value
    )
    monkeypatch.undo()
    state = load_latest(Path(config.out) / "checkpoints")
    assert state.valid_loss is not None
    assert state.step == 5 and all(bool(v.isfinite().all()) for v in state.model.values())
    assert [r["step"] for r in read_log(Path(config.out) / "log.jsonl")] == [1, 2, 3, 4, 5]


def test_a_learning_rate_that_is_far_too_high_is_caught(tiny) -> None:
    config = tiny(steps=200, lr=1e20, optimizer="sgd", clip=None, warmup=0, schedule="constant")
    with pytest.raises(NonFiniteLoss, match=r"step \d+: the loss is (nan|inf)"):
        train(config, quiet=True)


@pytest.mark.parametrize("steps", [13, 18])
def test_weights_that_a_step_has_broken_are_not_saved(tiny, tmp_path: Path, steps: int) -> None:
    """Whether the validation after the last step shows it, or the next batch."""
    good = tiny()
    train(good, quiet=True)
    broken = {"lr": 1e30, "warmup": 0, "save_every": 99, "eval_every": 99}
    with pytest.raises(NonFiniteLoss, match=r"validation loss is nan.* start again with a lower"):
        train(tiny(**broken, steps=1, out=str(tmp_path / "new")), quiet=True)
    assert not checkpoints(tmp_path / "new" / "checkpoints")
    again = tiny(**broken, steps=steps)
    with pytest.raises(NonFiniteLoss, match=r"not saved; go on with: llmtutor train --resume"):
        train(again, resume=Path(good.out), with_changes=True, quiet=True)
    assert load_latest(Path(good.out) / "checkpoints").step == 12

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    for out in (good.out, tmp_path / "new"):
        text = (Path(out) / "log.jsonl").read_text(encoding="utf-8")
        assert [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_gpu_that_is_too_small_is_told_with_a_way_out(tiny, monkeypatch) -> None:
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loop, "train_step", full)
    with pytest.raises(ValueError, match=r"step 1 needs more memory .* larger accumulate"):
        train(tiny(), quiet=True)


def test_a_batch_that_the_processes_do_not_divide_is_refused(tiny, monkeypatch) -> None:
    from llmtutor.train.distributed import World

    monkeypatch.setattr("llmtutor.train.loop.connect", lambda device: World(0, 3))
    with pytest.raises(ValueError, match="a batch of 4 sequences cannot be shared equally by 3"):
        train(tiny(), quiet=True)
    assert not Path(tiny().out).exists()


def test_a_full_disk_keeps_the_checkpoint_before(tiny, monkeypatch) -> None:
    config = tiny()
    real, calls = os.fsync, iter(range(1000))

    def fsync(descriptor: int) -> None:
        if next(calls) > 7:  # the second checkpoint: three files and two folders each
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="cannot save the checkpoint: No space left"):
        train(config, quiet=True)
    monkeypatch.undo()
    folder = Path(config.out) / "checkpoints"
    assert [p.name for p in folder.iterdir()] == ["step-00000004"]
    assert train(config, resume=Path(config.out), quiet=True).step == 12
    losses(config)


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tiny, tmp_path: Path) -> None:
    """A file where a folder should be stops everybody, also the user root."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        train(tiny(out=str(tmp_path / "file" / "run")), quiet=True)


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such permission there")
def test_a_read_only_folder_is_an_error_of_the_system(tiny, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    try:
        try:
            (locked / "probe").touch()
        except PermissionError:
            pass
        else:
            pytest.skip("this user may write everywhere (root): nothing is read-only to it")
        with pytest.raises(PermissionError, match="locked"):
            train(tiny(out=str(locked / "run")), quiet=True)
    finally:
        locked.chmod(0o700)
