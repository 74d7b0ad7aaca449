"""Studies: each run is on disk when it ends, and a stopped study goes on where it stopped."""

import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from llmtutor.experiments import study as module
from llmtutor.experiments.study import Study, environment, load_record, run_study, size


def squares(up_to: int = 4, **changes: Any) -> Study:
    def runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"n": n} for n in range(plan["up_to"])]

    fields = {
        "name": "squares",
        "description": "n²",
        "plan": lambda written: {} if written else {"up_to": up_to},
        "runs": runs,
        "run": lambda n: {"square": n * n},
    }
    return Study(**{**fields, **changes})


def pow_2(n: int) -> dict[str, int]:
    """At the top of a module, so that another process finds it."""
    return {"square": n**2}


def test_every_run_is_recorded_with_what_it_took_and_where_it_was_made(tmp_path: Path) -> None:
    made = list(run_study(squares(), tmp_path))
    assert [(done, whole) for done, whole, _ in made] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    record = load_record("squares", tmp_path)
    assert [run["result"]["square"] for run in record.runs] == [0, 1, 4, 9]
    assert record.environments == [environment()]
    assert {"python", "torch", "numpy", "llmtutor"} == set(record.environments[0]["versions"])
    assert record.environments[0]["cpu"] and record.environments[0]["threads"] >= 1
    for run in record.runs:
        assert record.planned <= run["started"] <= run["finished"]
        assert run["seconds"] >= 0 and run["cpu_seconds"] >= 0
    assert size(squares(), tmp_path) == (4, 4, record.cpu_seconds)


def test_a_run_is_on_disk_before_the_next_one_starts(tmp_path: Path) -> None:
    seen = []

    def run(n: int) -> dict[str, int]:
        seen.append(len(load_record("squares", tmp_path).runs))
        return {"square": n * n}

    list(run_study(squares(run=run), tmp_path))
    assert seen == [0, 1, 2, 3]


def test_a_stopped_study_goes_on_and_makes_no_run_twice(tmp_path: Path) -> None:
    made = []

    def run(n: int) -> dict[str, int]:
        if n == 2 and made.count(2) == 0:
            made.append(n)
            raise KeyboardInterrupt
        made.append(n)
        return {"square": n * n}

    with pytest.raises(KeyboardInterrupt):
        list(run_study(squares(run=run), tmp_path))
    assert len(list(run_study(squares(run=run), tmp_path, limit=1))) == 1
    list(run_study(squares(run=run), tmp_path))
    assert made == [0, 1, 2, 2, 3]  # only the interrupted one again
    assert list(run_study(squares(run=run), tmp_path)) == []


OPEN = Path.open


def gone(*_: object, **__: object) -> None:
    """No clean-up, no last words: to the file it is as if the process were killed."""
    os._exit(9)


def third(call: Callable, instead: Callable) -> Callable:
    """``call``, but ``instead`` at the third time."""
    calls = itertools.count(1)
    return lambda *inputs, **more: (instead if next(calls) == 3 else call)(*inputs, **more)


def half_written(path: Path, *how: Any, **more: Any) -> IO[str]:
    file = OPEN(path, *how, **more)
    write = file.write
    file.write = lambda text: (write(text[: len(text) // 2]), file.flush(), gone())
    return file


def replaced(old: Path, new: Path) -> None:
    Path(old).replace(new)
    gone()


def go_on_until(moment: str, folder: Path) -> None:
    run = third(pow_2, gone) if moment == "in a run" else pow_2
    if moment == "written":
        os.fsync = third(os.fsync, gone)
    elif moment == "half written":
        Path.open = half_written
    elif moment == "replaced":
        os.replace = third(os.replace, replaced)
    list(run_study(squares(12, run=run), folder))


def test_a_study_killed_again_and_again_ends_like_one_left_in_peace(tmp_path: Path) -> None:
    # A server imports torch once and makes each process from itself.
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
    context.set_forkserver_preload(["llmtutor.experiments.study"])
    recorded = {"in a run": 2, "written": 4, "half written": 4, "replaced": 7}
    for moment, n_runs in recorded.items():
        process = context.Process(target=go_on_until, args=(moment, tmp_path))
        process.start()
        process.join()
        assert process.exitcode == 9
        assert len(load_record("squares", tmp_path).runs) == n_runs
    list(run_study(squares(12), tmp_path))
    received = [(run["settings"], run["result"]) for run in load_record("squares", tmp_path).runs]
    assert received == [({"n": n}, {"square": n * n}) for n in range(12)]
    assert [path.name for path in tmp_path.iterdir()] == ["squares.json"]


def test_processes_side_by_side_make_the_same_runs(tmp_path: Path) -> None:
    study = squares(run=pow_2)
    list(run_study(study, tmp_path, limit=1))
    made = [run["settings"]["n"] for _, _, run in run_study(study, tmp_path, processes=2)]
    assert sorted(made) == [1, 2, 3]
    record = load_record("squares", tmp_path)
    assert {r["settings"]["n"]: r["result"]["square"] for r in record.runs} == {
        0: 0,
        1: 1,
        2: 4,
        3: 9,
    }


def test_several_programs_on_one_study_make_each_run_once(tmp_path: Path) -> None:
    """One begins in the middle of a run of the other, and takes the next."""
    by: dict[str, list[int]] = {"one": [], "other": []}

    def other(n: int) -> dict[str, int]:
        by["other"].append(n)
        return {"square": n * n}

    def one(n: int) -> dict[str, int]:
        by["one"].append(n)
        if n == 0:
            list(run_study(squares(6, run=other), tmp_path, limit=2))
        return {"square": n * n}

    made = list(run_study(squares(6, run=one), tmp_path))
    assert by == {"one": [0, 3, 4, 5], "other": [1, 2]}
    assert [(done, whole) for done, whole, _ in made] == [(3, 6), (4, 6), (5, 6), (6, 6)]
    runs = load_record("squares", tmp_path).runs
    assert [run["settings"]["n"] for run in runs] == [1, 2, 0, 3, 4, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["squares.json"]


def test_a_plan_may_follow_from_what_was_found_since(tmp_path: Path) -> None:
    def plan(written: Mapping[str, Any]) -> dict[str, Any]:
        found = load_record("squares", tmp_path).runs if written else []
        new = {"0": 0} | {str(run["result"]["square"] + 1): 0 for run in found}
        return {"n": {n: 0 for n in new if int(n) < 20 and n not in written.get("n", {})}}

    def runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"n": int(n)} for n in plan["n"]]

    made = [
        run["settings"]["n"] for _, _, run in run_study(squares(plan=plan, runs=runs), tmp_path)
    ]
    assert made == [0, 1, 2, 5]


def test_the_plan_is_written_before_the_first_run_and_never_made_again(tmp_path: Path) -> None:
    plans = iter([{"up_to": 3}, {"up_to": 99}])
    study = squares(plan=lambda written: {} if written else next(plans))
    runs = run_study(study, tmp_path)
    next(runs)
    assert load_record("squares", tmp_path).plan == {"up_to": 3}
    runs.close()
    assert len(list(run_study(study, tmp_path))) == 2
    assert next(plans) == {"up_to": 99}
    assert "added" not in (tmp_path / "squares.json").read_text(encoding="utf-8")


def powers(*names: str, **changes: Any) -> Study:
    """A study that grows by a name, for which an exponent has to be planned."""

    def plan(written: Mapping[str, Any]) -> dict[str, Any]:
        known = written.get("exponent", {})
        return {"exponent": {name: len(name) for name in names if name not in known}}

    def runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"n": n, "p": plan["exponent"][name]} for n in (2, 3) for name in names]

    fields = {"plan": plan, "runs": runs, "run": lambda n, p: {"power": n**p}}
    return squares(**{**fields, **changes})


def test_a_plan_grows_by_what_is_missing_and_nothing_recorded_changes(tmp_path: Path) -> None:
    list(run_study(powers("ab"), tmp_path))
    before = load_record("squares", tmp_path)
    grown = powers("ab", "abc")
    assert size(grown, tmp_path)[:2] == (2, 4)  # counted before it is planned
    seen = []

    def run(n: int, p: int) -> dict[str, int]:
        seen.append(load_record("squares", tmp_path).plan)
        return {"power": n**p}

    made = list(run_study(powers("ab", "abc", run=run), tmp_path))
    assert [(done, whole) for done, whole, _ in made] == [(3, 4), (4, 4)]
    assert seen == 2 * [{"exponent": {"ab": 2, "abc": 3}}]  # on disk before its runs start
    after = load_record("squares", tmp_path)
    assert (after.runs[:2], after.planned) == (before.runs, before.planned)
    (later,) = after.added
    assert later["plan"] == {"exponent": {"abc": 3}}
    assert before.planned <= later["planned"] <= after.runs[2]["started"]
    assert [run["result"]["power"] for run in after.runs] == [4, 9, 8, 27]


def test_runs_that_a_study_has_no_more_stay_and_are_not_counted(tmp_path: Path) -> None:
    list(run_study(powers("ab", "abc"), tmp_path))
    before = load_record("squares", tmp_path).runs
    assert size(powers("abc"), tmp_path)[:2] == (2, 2)
    (one,) = run_study(powers("abc", "a"), tmp_path, limit=1)
    assert one[:2] == (3, 4)
    assert load_record("squares", tmp_path).runs[:-1] == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": lambda written: {"exponent": {"ab": 9}}}, "has an entry 'ab' already"),
        ({"plan": lambda written: {"exponent": 9}}, "has an entry 'exponent' already"),
        ({"plan": lambda written: {}}, r"lacks what this run needs: .*not planned yet"),
    ],
)
def test_a_plan_that_would_change_or_does_not_suffice_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    list(run_study(powers("ab"), tmp_path))
    before = (tmp_path / "squares.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        list(run_study(powers("ab", "abc", **changes), tmp_path))
    assert (tmp_path / "squares.json").read_bytes() == before


def test_a_device_reaches_the_run_and_the_record(tmp_path: Path) -> None:
    def run(n: int, device: str = "cpu") -> dict[str, str]:
        return {"device": device}

    next(run_study(squares(run=run), tmp_path))
    next(run_study(squares(run=run), tmp_path, device="meta"))
    record = load_record("squares", tmp_path)
    assert [run["result"]["device"] for run in record.runs] == ["cpu", "meta"]
    assert [here["device"] for here in record.environments] == ["cpu", "meta"]
    with pytest.raises(ValueError, match="'squares' is made on the CPU alone"):
        next(run_study(squares(), tmp_path, device="meta"))


def test_a_failed_write_leaves_the_last_record_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(run_study(squares(), tmp_path, limit=2))
    before = (tmp_path / "squares.json").read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        list(run_study(squares(), tmp_path))
    assert (tmp_path / "squares.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_not_a_number_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        list(run_study(squares(run=lambda n: {"square": float("nan")}), tmp_path))
    assert load_record("squares", tmp_path).runs == []


def test_two_runs_with_one_setting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the same settings"):
        list(run_study(squares(runs=lambda plan: [{"n": 1}, {"n": 1}]), tmp_path))


def test_results_are_found_by_settings(tmp_path: Path) -> None:
    list(run_study(squares(), tmp_path))
    record = load_record("squares", tmp_path)
    assert record.results(n=3) == [{"square": 9}]
    assert record.results(n=9) == [] and len(record.results()) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object"),
        ("{}", "expected the record of a study"),
        ("missing", "llmtutor experiment run squares"),
        ("cut", "expected a JSON object"),
        ("other", "expected the study 'squares', found 'cubes'"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    list(run_study(squares(), tmp_path, limit=1))
    path = tmp_path / "squares.json"
    whole = path.read_text(encoding="utf-8")
    if text == "missing":
        path.unlink()
    else:
        cut = {"cut": whole[: len(whole) // 2], "other": whole.replace('"squares"', '"cubes"')}
        path.write_text(cut.get(text, text), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_record("squares", tmp_path)
    assert "squares.json" in str(error.value)


def test_another_machine_gets_an_entry_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(run_study(squares(), tmp_path, limit=1))
    elsewhere = {**environment(), "cpu": "another"}
    monkeypatch.setattr(module, "environment", lambda device: elsewhere)
    list(run_study(squares(), tmp_path))
    record = load_record("squares", tmp_path)
    assert [run["environment"] for run in record.runs] == [0, 1, 1, 1]
    assert record.environments[1]["cpu"] == "another"


def test_a_record_has_one_line_a_run(tmp_path: Path) -> None:
    list(run_study(squares(), tmp_path))
    text = (tmp_path / "squares.json").read_text(encoding="utf-8")
    assert sum(json.dumps({"n": n}) in line for line in text.splitlines() for n in range(4)) == 4
