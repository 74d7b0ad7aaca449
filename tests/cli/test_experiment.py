"""`llmtutor experiment`: list, run and show, with a study of three tiny runs."""

from pathlib import Path

import pytest

from llmtutor import cli
from llmtutor.cli import experiment
from llmtutor.experiments import catalogue, study
from llmtutor.experiments.study import Study


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake = Study(
        name="fake",
        description="Three runs",
        runs=lambda plan: [{"n": n} for n in range(3)],
        run=lambda n: {"valid_loss": None if n == 2 else n / 2},
        plan=lambda written: {} if written else {"prediction": 0.5},
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", {"fake": fake})
    monkeypatch.setattr(study, "results_dir", lambda: tmp_path)
    return tmp_path


def test_the_room_of_the_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiment", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in ("list", "run", "show"))
    assert experiment.app.name == ("experiment",)


def test_list_run_stop_go_on_and_show(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiment", "list"]) == 0
    assert "0/?" in capsys.readouterr().out
    assert cli.main(["experiment", "run", "fake", "--limit", "1"]) == 0
    assert capsys.readouterr().out.startswith("1/3  loss 0.0000")
    assert cli.main(["experiment", "list"]) == 0
    assert "1/3" in capsys.readouterr().out
    assert cli.main(["experiment", "run", "fake"]) == 0
    said = capsys.readouterr().out
    assert "2/3  loss 0.5000" in said and "3/3  diverged" in said
    assert (fake / "fake.json").is_file()
    assert cli.main(["experiment", "show", "fake"]) == 0
    said = capsys.readouterr().out
    assert "prediction = 0.5" in said and "n=1" in said and "torch" in said


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "fakes"], "did you mean 'fake'"),
        (["show", "fake"], "llmtutor experiment run fake"),
        (["run", "fake", "--threads", "0"], "threads must be at least 1"),
        (["run", "fake", "--device", "gpu"], "unknown device 'gpu'"),
    ],
)
def test_mistakes_are_one_line(
    fake: Path, command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["experiment", *command]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_study_that_measures_no_loss_shows_its_numbers() -> None:
    made = {"settings": {"n": 1}, "result": {"speed": 7, "curve": [1]}, "cpu_seconds": 1.0}
    assert experiment._line(made) == "speed=7     1.0 s  n=1"
