"""The recorded studies: every figure drawn from them is computed here again from the raw curves."""

import hashlib
from dataclasses import asdict
from statistics import mean
from typing import Any

import numpy as np
import pytest

from llmtutor.experiments import studies
from llmtutor.experiments.scaling import Prediction, compute_optimal, fit_law, predict
from llmtutor.experiments.studies import (
    LEARNING_RATES,
    SCALING,
    SEEDS,
    learning_rate_rule,
    means,
    measurements,
    n_params,
)
from llmtutor.experiments.study import Record, load_record, results_dir, size
from llmtutor.experiments.training import SEQ_LEN, train_run


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return {name: load_record(name) for name in SCALING}


@pytest.mark.parametrize("name", SCALING)
def test_sizes_and_curves_of_a_scaling_study_fit_its_settings(
    name: str, records: dict[str, Record]
) -> None:
    for run in records[name].runs:
        result, settings = run["result"], run["settings"]
        batch = settings.get("batch_size", 16) * SEQ_LEN
        assert result["steps"] == settings["n_tokens"] // batch
        assert result["n_tokens"] == result["steps"] * batch
        curve = result["curve"]
        assert curve["step"][-1] == result["steps"]
        assert len(curve["step"]) == len(curve["loss"]) == len(curve["grad_norm"])


def test_final_losses_are_in_keeping_with_the_curves(records: dict[str, Record]) -> None:
    """The end of a training curve and the loss on held-out works tell the same story."""
    for record in records.values():
        for run in record.runs:
            end = mean(run["result"]["curve"]["loss"][-3:])
            assert abs(run["result"]["valid_loss"] - end) < 0.35, (record.study, run["settings"])


def test_the_smallest_run_is_made_again(records: dict[str, Record]) -> None:
    """Rounding differs between processors and grows, so the end is compared less strictly."""
    record = records["sizes"]
    cheapest = min(
        (r for r in record.runs if r["settings"]["seed"] == 1),
        key=lambda r: (r["result"]["n_tokens"], r["result"]["n_params"]),
    )
    again = train_run(**cheapest["settings"])
    old, new = cheapest["result"]["curve"]["loss"], again["curve"]["loss"]
    np.testing.assert_allclose(new[:10], old[:10], atol=2e-3)
    np.testing.assert_allclose(new, old, atol=0.1)
    assert again["valid_loss"] == pytest.approx(cheapest["result"]["valid_loss"], abs=0.03)


def test_learning_rates_of_the_sizes_are_those_of_the_sweep(records: dict[str, Record]) -> None:
    rule = learning_rate_rule(records["learning-rate"])
    for d, rate in records["sizes"].plan["learning_rate"].items():
        assert rate == pytest.approx(rule(n_params(int(d))), abs=1e-5)
    for run in records["sizes"].runs:
        settings = run["settings"]
        assert settings["lr"] == records["sizes"].plan["learning_rate"][str(settings["d_model"])]
    assert records["held-out"].plan["learning_rate"] == pytest.approx(
        rule(records["held-out"].plan["n_params"]), abs=1e-5
    )


def test_the_best_learning_rate_lies_inside_what_was_tried(records: dict[str, Record]) -> None:
    losses = means(records["learning-rate"], "d_model", "lr")
    for d, rates in LEARNING_RATES.items():
        best = min(rates, key=lambda lr: losses[d, lr])
        assert rates[0] < best < rates[-1]


# The held-out run --------------------------------------------------------------------------------


def test_the_prediction_was_written_before_the_run(records: dict[str, Record]) -> None:
    held_out = records["held-out"]
    assert max(run["finished"] for run in records["sizes"].runs) <= held_out.planned
    assert all(held_out.planned <= run["started"] for run in held_out.runs)


def test_the_prediction_is_of_this_sweep_and_no_run_of_its_size_is_in_it(
    records: dict[str, Record],
) -> None:
    plan = records["held-out"].plan
    file = (results_dir() / "sizes.json").read_bytes()
    assert hashlib.sha256(file).hexdigest() == plan["sizes_sha256"]
    x, _ = measurements(records["sizes"])
    assert x[:, 0].max() < plan["n_params"] and x[:, 1].max() < plan["n_tokens"]
    for run in records["held-out"].runs:
        assert run["result"]["n_params"] == plan["n_params"]
        assert run["result"]["n_tokens"] == plan["n_tokens"]


def by_hand(record: Record) -> dict[tuple[int, int], float]:
    """The means that the law is fitted to, without any function of the library."""
    groups: dict[tuple[int, int], list[float]] = {}
    for run in record.runs:
        key = run["result"]["n_params"], run["result"]["n_tokens"]
        groups.setdefault(key, []).append(run["result"]["valid_loss"])
    assert {len(losses) for losses in groups.values()} == {SEEDS}
    return {key: mean(losses) for key, losses in groups.items()}


def test_fit_and_interval_come_out_of_the_raw_file_again(records: dict[str, Record]) -> None:
    plan = records["held-out"].plan
    cells = by_hand(records["sizes"])
    x, losses = np.array(list(cells), float), np.array(list(cells.values()))
    mine, theirs = measurements(records["sizes"]), (x, losses)
    assert all((a == b).all() for a, b in zip(mine, theirs, strict=True))
    law = fit_law(x, losses)
    recorded: dict[str, Any] = plan["law"]
    assert law.floor == pytest.approx(recorded["floor"], rel=1e-4)
    assert law.coefficients == pytest.approx(recorded["coefficients"], rel=1e-3)
    assert law.exponents == pytest.approx(recorded["exponents"], rel=1e-4)
    found = predict(x, losses, (plan["n_params"], plan["n_tokens"]))
    assert asdict(found) == pytest.approx(plan["prediction"], abs=1e-4)


def test_the_held_out_run_lies_where_it_was_predicted(records: dict[str, Record]) -> None:
    held_out = records["held-out"]
    assert len(held_out.runs) == SEEDS
    measured = mean(run["result"]["valid_loss"] for run in held_out.runs)
    assert measured in Prediction(**held_out.plan["prediction"])


def test_the_held_out_run_beats_every_fitted_one(records: dict[str, Record]) -> None:
    """Else the prediction would be of nothing new."""
    measured = mean(run["result"]["valid_loss"] for run in records["held-out"].runs)
    assert measured < min(run["result"]["valid_loss"] for run in records["sizes"].runs)


def test_the_law_divides_a_budget_inside_the_range(records: dict[str, Record]) -> None:
    law = fit_law(*measurements(records["sizes"]))
    n, d = compute_optimal(law, 6 * 100_672 * 600_000)
    assert law(n, d) <= law(100_672, 600_000)


def test_a_run_that_diverged_is_not_averaged_away() -> None:
    runs = [{"settings": {"lr": 1.0}, "result": {"valid_loss": None}}]
    with pytest.raises(ValueError, match="diverged"):
        means(Record("x", "", {}, "", [], runs), "lr")


def test_only_seeds_are_averaged_over() -> None:
    runs = [
        {"settings": {"d": d, "n": n, "seed": seed}, "result": {"valid_loss": d + n + seed}}
        for d in (1, 2)
        for n in (10, 20)
        for seed in (0, 1)
    ]
    record = Record("x", "", {}, "", [], runs)
    assert means(record, "d", "n")[2, 10] == 12.5
    with pytest.raises(ValueError, match="d do not tell apart"):
        means(record, "d")


def test_a_width_more_gets_a_rate_and_the_others_keep_theirs(
    records: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "WIDTHS", (*studies.WIDTHS, 128))
    new = SCALING["sizes"].plan(records["sizes"].plan)
    assert list(new["learning_rate"]) == ["128"]
    assert new["learning_rate"]["128"] == records["held-out"].plan["learning_rate"]
    assert size(SCALING["sizes"])[:2] == (36, 42)
