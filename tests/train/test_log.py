"""Logs: each line whole, each step once, whatever stops the run."""

import errno
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from llmtutor.train.log import JsonLines, Loggers, Progress, Wandb, open_loggers, read_log


def record(step: int, **more: float) -> dict:
    return {"step": step, "loss": 1 / (step + 1), "lr": 1e-3} | more


def filled(path: Path, steps: int = 5) -> None:
    log = JsonLines(path)
    for step in range(1, steps + 1):
        log.log(record(step))
    log.close()


def test_one_object_a_line_with_every_digit(tmp_path: Path) -> None:
    filled(tmp_path / "a" / "log.jsonl", 3)
    text = (tmp_path / "a" / "log.jsonl").read_bytes()
    assert text.count(b"\n") == 3 and text.endswith(b"}\n") and b"\r" not in text
    assert [json.loads(line) for line in text.splitlines()] == [record(s) for s in (1, 2, 3)]
    assert read_log(tmp_path / "a" / "log.jsonl") == [record(s) for s in (1, 2, 3)]


def test_a_resumed_log_has_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    filled(path, 5)
    log = JsonLines(path, step=3)
    for step in (4, 5, 6):
        log.log(record(step))
    log.close()
    assert [r["step"] for r in read_log(path)] == [1, 2, 3, 4, 5, 6]
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_an_unfinished_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    filled(path, 2)
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert [r["step"] for r in read_log(path)] == [1, 2]
    log = JsonLines(path, step=2)
    log.log(record(3))
    log.close()
    assert [r["step"] for r in read_log(path)] == [1, 2, 3]


@pytest.mark.parametrize("line", [b"hello", b"[1]", b'{"loss": 2}', b"\xff"])
def test_a_line_that_is_no_record_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    filled(path, 2)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"log\.jsonl, line 3: expected a record"):
        read_log(path)


@pytest.mark.parametrize("written", [0, 9])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, written: int) -> None:
    """`written` bytes still fit; the rest does not."""
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.log(record(1))
    file = log._file

    class Full:
        def write(self, data: bytes) -> int:
            file.write(data[:written])
            if written:
                return written
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str):
            return getattr(file, name)

    log._file = Full()
    with pytest.raises(OSError, match="cannot write the log: No space left") as error:
        log.log(record(2))
    assert str(path) in str(error.value)
    assert path.read_bytes() == (json.dumps(record(1)) + "\n").encode()


def test_a_step_may_have_a_validation_loss_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    for r in (record(1), {"step": 1, "valid_loss": 2.0}, record(2), {"step": 2, "valid_loss": 1.0}):
        log.log(r)
    log.close()
    JsonLines(path, step=1).close()
    assert read_log(path) == [record(1), {"step": 1, "valid_loss": 2.0}]


def test_progress_without_a_terminal_is_some_lines(capsys) -> None:
    progress = Progress(40)
    for step in range(1, 41):
        progress.log(record(step))
    progress.log({"step": 40, "valid_loss": 0.6931})
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 21 and lines[0].startswith("step 2: loss 0.3333")
    assert lines[-1] == "step 40: validation loss 0.6931, perplexity 2.00"


# Optional loggers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_logger_whose_package_is_missing_says_so(tmp_path, monkeypatch, name, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # import raises ImportError
    with pytest.raises(ValueError, match=f"logger '{name}' needs .* `pip install {name}`"):
        open_loggers(tmp_path, (name,), 10, 0, quiet=True)


def test_wandb_is_offline_unless_told(tmp_path: Path, monkeypatch) -> None:
    """A stand-in for the package: what it is asked to do."""
    calls: list = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finished"),
    )
    stand_in = ModuleType("wandb")
    stand_in.init = lambda **options: calls.append(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log = Wandb(tmp_path / "first" / "wandb")
    log.log(record(3))
    log.close()
    options = calls[0]
    assert options["mode"] == "offline" and options["name"] == "first"
    assert Path(options["dir"]).is_dir()
    assert calls[1:] == [(3, {"loss": 0.25, "lr": 1e-3}), "finished"]
    monkeypatch.setenv("WANDB_MODE", "online")
    Wandb(tmp_path / "first" / "wandb")
    assert calls[-1]["mode"] == "online"


def test_tensorboard_gets_each_number_and_hides_what_is_taken_again(tmp_path, monkeypatch) -> None:
    calls: list = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append((Path(folder).name, purge_step))

        def add_scalar(self, *point: object) -> None:
            calls.append(point)

        def close(self) -> None:
            calls.append("closed")

    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    log = open_loggers(tmp_path, ("tensorboard",), 10, 4, quiet=True)
    log.log({"step": 5, "loss": 2.0})
    log.close()
    assert calls == [("tensorboard", 5), ("loss", 2.0, 5), "closed"]


def test_real_tensorboard_writes_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    log = open_loggers(tmp_path, ("tensorboard",), 10, 0, quiet=True)
    log.log(record(1))
    log.close()
    assert any(p.stat().st_size > 0 for p in (tmp_path / "tensorboard").iterdir())


def test_what_only_shows_may_fail_and_the_record_may_not(tmp_path: Path, capsys) -> None:
    class Broken:
        asked = 0

        def log(self, _: object) -> None:
            self.asked += 1
            raise ConnectionError("nobody listens")

        def close(self) -> None:
            raise AssertionError("it is left out by now")

    broken, path = Broken(), tmp_path / "log.jsonl"
    log = Loggers([JsonLines(path), broken])
    for step in (1, 2):
        log.log(record(step))
    with pytest.raises(ValueError, match=r"finite numbers only, got .*nan"):
        log.log(record(3, loss=float("nan")))
    log.close()
    assert read_log(path) == [record(1), record(2)] and broken.asked == 1
    assert capsys.readouterr().err == "llmtutor: Broken is left out from here on: nobody listens\n"
    with pytest.raises(ConnectionError):
        Loggers([Broken()]).log(record(1))


def test_no_loggers_take_anything() -> None:
    log = Loggers([])
    log.log(record(1))
    log.close()
