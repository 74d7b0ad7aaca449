"""Runs made again: which are taken, what they are judged by, and that a stop costs nothing."""

import importlib.util
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from llmtutor.experiments import catalogue
from llmtutor.experiments import study as module
from llmtutor.experiments.study import Record, Study, load_record, run_study

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "again.py"
spec = importlib.util.spec_from_file_location("again", SCRIPT)
assert spec and spec.loader
again = importlib.util.module_from_spec(spec)
spec.loader.exec_module(again)

LOSSES = {"a": [1.0, 1.2, 1.1, 1.4, 1.3], "b": [2.0, 2.6]}


def record(losses: dict[str, list[float]]) -> Record:
    runs: list[dict[str, Any]] = [
        {"settings": {"name": name, "seed": seed}, "result": {"valid_loss": loss}}
        for name, some in losses.items()
        for seed, loss in enumerate(some)
    ]
    return Record("x", "", {}, "", [], runs)


def test_the_noise_is_the_root_of_the_mean_variance_over_seeds() -> None:
    a, b = (stdev(losses) for losses in LOSSES.values())
    assert again.seed_noise(record(LOSSES)) == pytest.approx(((4 * a**2 + b**2) / 5) ** 0.5)
    with pytest.raises(ValueError, match="no two seeds"):
        again.seed_noise(record({"a": [1.0], "b": [2.0]}))


def test_a_stopped_check_goes_on_and_the_record_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def run(n: int, seed: int) -> dict[str, float | None]:
        made.append(n)
        if made.count(2) == 3:  # the first time that it is made again
            raise KeyboardInterrupt
        return {"valid_loss": None if n == 9 else n + seed}

    monkeypatch.setattr(module, "results_dir", lambda: tmp_path)
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    runs = [{"n": n, "seed": seed} for n in (1, 2, 9) for seed in (0, 1)]
    study = Study(name="sums", description="", runs=lambda plan: runs, run=run)
    list(run_study(study))
    before = (tmp_path / "sums.json").read_bytes()
    made_at_first = list(made)
    assert made_at_first == [1, 1, 2, 2, 9, 9]
    with pytest.raises(KeyboardInterrupt):
        list(again.make_again(study, limit=9))
    found = list(again.make_again(study, limit=9))
    assert made[6:] == [1, 1, 2, 2, 2]  # only the interrupted one twice; what diverged is left out
    assert [(one.settings["n"], one.now - one.recorded) for one in found] == [
        (1, 0),
        (1, 0),
        (2, 0),
        (2, 0),
    ]
    assert next(again.make_again(study, limit=1, n="2", seed="1")).now == 3 and len(made) == 11
    assert (tmp_path / "sums.json").read_bytes() == before
    assert len(load_record("sums", again.again_dir()).runs) == 4
    with pytest.raises(ValueError, match=r"no recorded run with a final loss and \{'n': '9'\}"):
        list(again.make_again(study, n="9"))


def test_it_is_said_which_runs_disagree_with_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    off = 0.0

    def run(n: int, seed: int) -> dict[str, float]:
        return {"valid_loss": n + 0.1 * seed + off}

    runs = [{"n": n, "seed": seed} for seed in range(3) for n in (1, 2)]
    fake = Study(name="fake", description="", runs=lambda plan: runs, run=run)
    monkeypatch.setattr(catalogue, "CATALOGUE", {"fake": fake})
    monkeypatch.setattr(module, "results_dir", lambda: tmp_path)
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    list(run_study(fake))
    off = 0.05
    again.main("fake", ["n=2", "seed=1"], limit=2)
    said = capsys.readouterr().out
    assert "2.1000    2.1500     +0.0500  0.1000     +0.50  {'n': 2, 'seed': 1}" in said
    off = 0.2
    with pytest.raises(SystemExit, match="otherwise than recorded"):
        again.main("fake", ["n=1"], limit=1)
    with pytest.raises(ValueError, match="settings as NAME=VALUE, got 'n'"):
        again.main("fake", ["n"], limit=1)
