"""The folder of a run: whose it is, and that a run finds in it what it needs to go on."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmtutor.tokenizer import CharTokenizer, load_tokenizer
from llmtutor.train import folder
from llmtutor.train import state as state_module
from llmtutor.train.folder import locked, make_room, read_config, run_folder
from llmtutor.train.log import read_log
from llmtutor.train.loop import train
from llmtutor.train.state import checkpoints, load_latest

HOLDER = """
import sys
from pathlib import Path
from llmtutor.train.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tiny) -> None:
    config = tiny(steps=1)
    out = Path(config.out)
    command = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline().strip() == b"held"
        with pytest.raises(ValueError, match="another process is training into this folder"):
            train(config, quiet=True)
        assert [path.name for path in out.iterdir()] == [".lock"]
        holder.kill()
    train(config, quiet=True)
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "checkpoints",
        "log.jsonl",
        "tokenizer",
    ]


def test_the_lock_is_given_back_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    for _ in range(2):
        with pytest.raises(KeyError), locked(out):
            with pytest.raises(ValueError, match="take another --out"), locked(out):
                pass
            raise KeyError
        assert not out.exists()


def test_a_drive_without_locks_stops_nobody(tmp_path: Path, monkeypatch, capsys) -> None:
    def acquire(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder.FileLock, "acquire", acquire)
    with locked(tmp_path / "run"):
        pass
    assert "no locks here" in capsys.readouterr().err


def test_a_checkpoint_is_one_from_wherever_it_is_named(tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    one = run / "checkpoints" / "step-00000004"
    one.mkdir(parents=True)
    monkeypatch.chdir(one.parent)
    names = (one, Path(one.name), Path(f"../checkpoints/{one.name}"), Path(f"./{one.name}"))
    assert all(run_folder(name).resolve() == run.resolve() for name in names)
    monkeypatch.chdir(run)
    assert run_folder(Path()) == Path()
    assert run_folder(Path("checkpoints") / one.name) == Path()


# Going on -----------------------------------------------------------------------------------------


def halfway(config) -> Path:
    """A run that was stopped between its last two checkpoints."""
    train(config, quiet=True)
    shutil.rmtree(Path(config.out) / "checkpoints" / "step-00000012")
    return Path(config.out)


def test_another_text_is_refused(tiny, capsys) -> None:
    config = tiny()
    out = halfway(config)
    corpus = Path(config.corpus)
    tales = corpus.read_bytes().split(b"<|endoftext|>")
    corpus.write_bytes(b"<|endoftext|>".join(tales[::-1]))
    with pytest.raises(
        ValueError, match=r"another run .*\n.*\n  text of .*mine\.txt: \w{12}… → \w"
    ):
        train(config, resume=out, quiet=True)
    assert load_latest(out / "checkpoints").step == 8
    assert train(config, resume=out, with_changes=True, quiet=True).step == 12
    assert "going on with changes" in capsys.readouterr().err
    corpus.write_text("Ωμέγα " * 1000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"'Ω'.* has the text of the run changed"):
        train(config, resume=out, with_changes=True, quiet=True)


@pytest.mark.parametrize("own", [True, False])
def test_a_run_goes_on_from_another_folder(tiny, tmp_path: Path, monkeypatch, own: bool) -> None:
    """Its tokenizer is the one it has kept; without that, the one it was given, where it was."""
    monkeypatch.chdir(tmp_path)
    whole = tiny(corpus="mine.txt", out="whole")
    train(whole, quiet=True)
    shutil.move(tmp_path / "whole" / "tokenizer", tmp_path / "letters")
    out = halfway(tiny(corpus="mine.txt", tokenizer="letters", out="run"))
    shutil.rmtree(tmp_path / ("letters" if own else "run/tokenizer"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "elsewhere" / "data"))
    config = tiny(**read_config(tmp_path / out).to_dict() | {"out": str(tmp_path / out)})
    assert train(config, resume=tmp_path / out, quiet=True).step == 12
    logs = (read_log(tmp_path / name / "log.jsonl") for name in ("whole", "run"))
    assert [r.get("loss") for r in next(logs)] == [r.get("loss") for r in next(logs)]
    assert load_tokenizer(tmp_path / "run" / "tokenizer")


def test_a_text_may_be_found_in_another_place(tiny, tmp_path: Path) -> None:
    config = tiny()
    out = halfway(config)
    moved = Path(config.corpus).rename(tmp_path / "other.txt")
    assert train(tiny(corpus=str(moved)), resume=out, quiet=True).step == 12


def test_another_tokenizer_in_the_folder_is_set_aside(tmp_path: Path) -> None:
    """Of both in one folder it could not be told which one the run has."""
    first, second = CharTokenizer("ab"), CharTokenizer("abc")
    for tokenizer in (first, first, second):
        make_room(tmp_path, 0, tokenizer)
    assert load_tokenizer(tmp_path / "tokenizer").fingerprint() == second.fingerprint()
    assert load_tokenizer(tmp_path / "tokenizer.abandoned").fingerprint() == first.fingerprint()


def test_settings_that_nobody_knows_are_told_with_their_folder(tiny) -> None:
    config = tiny(steps=1)
    train(config, quiet=True)
    path = checkpoints(Path(config.out) / "checkpoints")[-1] / "state.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["config"]["stepz"] = 3
    record["seal"] = state_module._seal(record)
    path.write_text(json.dumps(record), encoding="utf-8")
    for read in (read_config, lambda out: train(config, resume=out)):
        with pytest.raises(ValueError, match=r"run: the settings .* unknown field 'stepz'; did"):
            read(Path(config.out))
