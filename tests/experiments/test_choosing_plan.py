"""The queue of ``choosing``: what comes first, when a rate is known, how it moves with the size."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from llmtutor.experiments import study
from llmtutor.experiments.catalogue import CATALOGUE
from llmtutor.experiments.choosing import plan as module
from llmtutor.experiments.choosing.options import OPTIONS, SIZES
from llmtutor.experiments.choosing.plan import (
    CHECKED,
    FIRST,
    LARGE,
    MIDDLE,
    NAME,
    RATE_SEED,
    RATES,
    RETUNED,
    SEEDS,
    TUNED,
    all_runs,
    beyond,
    moved,
    run_option,
    to_check,
)
from llmtutor.experiments.study import Record, load_record, run_study

FEW = ("baseline", "baseline again", "gqa-2", "head lost")
BEST = {"small": 0.01, "middle": 0.005, "large": 0.05}


def faked(*, size: str, option: str, lr: float, seed: int) -> Mapping[str, Any]:
    """A bowl of losses around a best rate of each size; a rate of 0.2 or more diverges."""
    best = BEST[size] * (0.5 if option == "gqa-2" else 1.0)
    loss = None if lr >= 0.2 else 2 + math.log(lr / best) ** 2
    return {"bits_per_byte": loss, "train_flops": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The whole study with four options."""
    folder: Path = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "results_dir", lambda: folder)
        few = MappingProxyType({name: OPTIONS[name] for name in FEW})
        patch.setattr(module, "OPTIONS", few)
        tuned = {"small": ("baseline", "gqa-2"), "middle": ("baseline",), "large": ("baseline",)}
        patch.setattr(module, "TUNED", tuned)
        patch.setattr(module, "RETUNED", ())
        patch.setattr(module, "FIRST", (FEW[:2],))
        for name in ("MIDDLE", "LARGE"):
            patch.setattr(module, name, FEW[:3])
        whole = replace(CATALOGUE[NAME], run=faked)
        list(run_study(whole, limit=3))
        list(run_study(whole))  # it was stopped and goes on
        assert not list(run_study(whole))
        return load_record(NAME)


def order(record: Record) -> list[tuple[str, str, int]]:
    return [tuple(run["settings"][k] for k in ("size", "option", "seed")) for run in record.runs]  # type: ignore[misc]


def test_runs_come_in_the_order_that_can_be_read(made: Record) -> None:
    tuned = [(size, option) for size, option, seed in order(made) if seed == RATE_SEED]
    compared = [run for run in order(made) if run[2] != RATE_SEED]
    assert list(dict.fromkeys(tuned)) == [
        ("small", "baseline"),
        ("middle", "baseline"),
        ("small", "gqa-2"),
        ("large", "baseline"),
    ]
    small = [("small", name, seed) for seed in range(5) for name in FEW[:2]]
    rest = [("small", name, seed) for seed in range(5) for name in FEW[2:]]
    # gqa-2 is not tuned yet when the first two seeds of the middle size are due
    early = [("middle", name, seed) for seed in range(2) for name in FEW[:2]]
    late = [("middle", "gqa-2", seed) for seed in range(2)]
    late += [("middle", name, seed) for seed in range(2, 5) for name in FEW[:3]]
    large = [("large", name, seed) for seed in range(3) for name in FEW[:3]]
    assert sorted(compared) == sorted(small + rest + early + late + large)
    assert compared[:14] == small + early
    assert compared[-9:] == large


def test_a_grid_grows_and_the_best_rate_is_found_inside(made: Record) -> None:
    def lrs(size: str, option: str) -> list[float]:
        wanted = {"size": size, "option": option, "seed": RATE_SEED}
        runs = [run["settings"] for run in made.runs]
        return sorted(s["lr"] for s in runs if wanted.items() <= s.items())

    assert lrs("small", "baseline") == [0.004, *RATES]
    assert lrs("middle", "baseline") == [0.002, 0.004, *RATES]
    assert lrs("large", "baseline") == [*RATES, 0.064, 0.128]
    known = made.plan["learning_rate"]
    assert known["small"]["gqa-2"] == pytest.approx(0.005, rel=0.02)
    assert known["large"]["baseline"] == pytest.approx(0.05, rel=0.02)


def test_rates_move_by_the_baselines_factor_and_defects_share_its_rate(made: Record) -> None:
    known = made.plan["learning_rate"]
    for size in ("middle", "large"):
        factor = known[size]["baseline"] / known["small"]["baseline"]
        assert known[size]["gqa-2"] == pytest.approx(factor * known["small"]["gqa-2"], rel=2e-3)
    assert (
        known["small"]["head lost"]
        == known["small"]["baseline again"]
        == known["small"]["baseline"]
    )
    for run in made.runs:
        settings = run["settings"]
        if settings["seed"] != RATE_SEED:
            assert settings["lr"] == known[settings["size"]][settings["option"]]


def test_what_was_planned_first_stays_and_what_came_is_dated(made: Record) -> None:
    first = [entry["plan"] for entry in made.added]
    assert any("learning_rate" in entry for entry in first)
    grown = [entry for entry in first if entry.get("rates", {}).get("large")]
    assert [list(entry["rates"]["large"]["baseline"]) for entry in grown] == [["0.064"], ["0.128"]]


def test_the_next_rate_lies_beyond_the_best_end() -> None:
    assert beyond({0.004: 1.0, 0.008: 2.0, 0.016: 3.0}) == 0.002
    assert beyond({0.004: 3.0, 0.008: 2.0, 0.016: 1.0}) == 0.032


def test_a_moved_rate_is_tried_beside_its_half_and_its_double() -> None:
    plan = {"learning_rate": {"middle": {"baseline": 0.02, "mamba": 0.01}}}
    wanted = {"size": "middle", "option": "mamba", "seed": RATE_SEED}
    assert list(to_check(plan, "middle")) == [wanted | {"lr": lr} for lr in (0.005, 0.01, 0.02)]
    assert set(CHECKED) < set(MIDDLE) and list(to_check({}, "middle")) == []


def test_what_is_tuned_at_a_larger_size_has_no_rate_and_no_run_below_it() -> None:
    (name,) = RETUNED
    tuned = {"small": {"baseline": 0.02}, "middle": {"baseline": 0.015, name: 0.004}}
    known = moved({**tuned, "large": {"baseline": 0.0075}})
    assert {size: at.get(name) for size, at in known.items()} == {
        "small": None,
        "middle": 0.004,
        "large": 0.002,
    }
    assert name not in TUNED["small"] and TUNED["middle"] == ("baseline", name)
    assert name in LARGE and name not in MIDDLE  # behind those of the middle size, not among them
    runs = [run for run in all_runs({"learning_rate": known}) if run["option"] == name]
    assert [(run["size"], run["lr"], run["seed"]) for run in runs] == [
        *(("middle", 0.004, seed) for seed in range(SEEDS["middle"])),
        *(("large", 0.002, seed) for seed in range(SEEDS["large"])),
    ]


def test_a_rate_waits_for_the_baseline_of_its_size() -> None:
    known = moved({"small": {"gqa-2": 0.01}, "middle": {}, "large": {}})
    assert known == {"small": {"gqa-2": 0.01}, "middle": {}, "large": {}}


def test_names_in_the_plan_are_options_and_seeds_are_enough() -> None:
    early = [name for names in FIRST for name in names]
    assert len(set(early)) == len(early)
    for names in (early, MIDDLE, LARGE):
        assert set(names) <= set(OPTIONS) and tuple(names[:2]) == ("baseline", "baseline again")
    assert SEEDS.keys() == SIZES.keys()
    assert SEEDS["small"] >= 5 and SEEDS["middle"] >= 5 and SEEDS["large"] >= 3
    assert all(RATE_SEED not in range(n) for n in SEEDS.values()) and len(RATES) >= 3


def test_its_seed_says_what_a_run_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tune_option", lambda **settings: {"tuned": settings})
    monkeypatch.setattr(module, "measure_option", lambda **settings: {"compared": settings})
    for seed, what in ((RATE_SEED, "tuned"), (0, "compared")):
        settings = {"size": "small", "option": "mqa", "lr": 0.1, "seed": seed}
        assert run_option(**settings) == {what: settings}
