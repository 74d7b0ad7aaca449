"""The command as a whole: quick help, one line for a mistake, suggestions for a slip."""

import subprocess
import sys

import pytest

from llmtutor import __version__, cli


def test_help_lists_the_rooms_and_loads_no_torch() -> None:
    code = (
        "import sys; from llmtutor import cli; code = cli.main(['--help']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "data" in done.stdout and "tokenizer" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("command", [["data"], ["tokenizer"]])
def test_each_room_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    assert "Commands" in capsys.readouterr().out


def test_a_callers_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "fetch", "shakespear"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("llmtutor: ") and "shakespeare" in error


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMTUTOR_TRACEBACK", "1")
    with pytest.raises(ValueError, match="shakespeare"):
        cli.main(["data", "fetch", "shakespear"])


@pytest.mark.parametrize("value", ["-my run", "--seed"])
def test_a_value_taken_for_an_option_can_be_given(value: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["tokenizer", "train", "no such corpus", "--out", value])
    error = " ".join(capsys.readouterr().err.replace("│", "").split())
    joined = {"-my run": "'--out=-my run'", "--seed": "--out=--seed"}[value]
    assert f"--out requires an argument. If '{value}' is meant to be it, write {joined}" in error
    assert cli.main(["tokenizer", "train", "no such corpus", f"--out={value}"]) == 1
    assert "no such corpus" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["tokenizer", "train", "x", "--out"])
    assert "meant" not in capsys.readouterr().err


def test_a_slip_in_a_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["tokenizr"])
    assert stop.value.code != 0
    assert "tokenizer" in capsys.readouterr().err
