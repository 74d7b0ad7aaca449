"""Studies of an installed package: its records are read, and what is added is the user's."""

import json
from pathlib import Path

import pytest

from llmtutor.experiments import kept, study
from llmtutor.experiments.study import Study, load_record, record_path, run_study, size

SUMS = Study(
    name="sums",
    description="",
    runs=lambda plan: [{"n": n} for n in range(plan["most"])],
    run=lambda n: {"valid_loss": float(n)},
    plan=lambda written: {} if "most" in written else {"most": 2},
)
MORE = Study(
    name="sums",
    description="",
    runs=lambda plan: [{"n": n} for n in range(4)],
    run=lambda n: {"valid_loss": float(n)},
    plan=lambda written: {} if "prediction" in written else {"prediction": 0.5},
)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The package's records, with one study in them, and the user's folder for theirs."""
    for module in (study, kept):
        monkeypatch.setattr(module, "shipped", lambda what: tmp_path / "package" / what)
        monkeypatch.setattr(module, "checkout", lambda: None)
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "user"))
    package, user = tmp_path / "package" / "results", tmp_path / "user" / "results"
    list(run_study(SUMS, package))
    return package, user


def test_a_record_of_the_package_is_read_where_it_is(places: tuple[Path, Path]) -> None:
    package, user = places
    assert size(SUMS) == size(SUMS, package) and size(SUMS)[:2] == (2, 2)
    assert list(run_study(SUMS)) == []  # nothing is left to do
    assert record_path("sums") == package / "sums.json"
    assert not (user / "sums.json").exists()


def test_own_runs_go_on_from_it_and_leave_it_as_it_is(places: tuple[Path, Path]) -> None:
    package, user = places
    before = (package / "sums.json").read_bytes()
    assert len(list(run_study(MORE, limit=1))) == 1
    assert (package / "sums.json").read_bytes() == before
    assert [run["settings"]["n"] for run in load_record("sums").runs] == [0, 1, 2]
    assert load_record("sums").plan == {"most": 2, "prediction": 0.5}
    list(run_study(MORE))
    assert size(MORE)[:2] == (4, 4) and record_path("sums") == user / "sums.json"


def test_what_is_only_planned_is_kept_too(places: tuple[Path, Path]) -> None:
    list(run_study(MORE, limit=0))
    next(iter(run_study(MORE)))
    assert load_record("sums").plan["prediction"] == 0.5
    assert len(load_record("sums").added) == 1


def test_a_package_that_has_more_by_now_is_read_again(places: tuple[Path, Path]) -> None:
    package, user = places
    list(run_study(MORE, limit=1))
    assert record_path("sums") == user / "sums.json"
    list(run_study(MORE, package))
    assert record_path("sums") == package / "sums.json"


def test_a_study_that_the_package_lacks_is_the_users(places: tuple[Path, Path]) -> None:
    _, user = places
    (places[0] / "sums.json").unlink()
    with pytest.raises(ValueError, match="llmtutor experiment run sums"):
        load_record("sums")
    list(run_study(SUMS, limit=1))
    assert len(json.loads((user / "sums.json").read_text("utf-8"))["runs"]) == 1


def test_a_model_is_kept_in_the_users_folder_and_read_from_the_package(
    places: tuple[Path, Path],
) -> None:
    package, user = places
    assert kept.kept_dir() == package.parent / "models" / "staircase"
    kept.own_kept_dir().mkdir(parents=True)
    kept.write_card({"loss": 1})
    assert (user.parent / "models" / "staircase" / kept.CARD).is_file()
    assert not kept.kept_dir().exists()
