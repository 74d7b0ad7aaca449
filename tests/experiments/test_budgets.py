"""One budget on many sizes, and repeated text."""

import numpy as np
import pytest

from llmtutor.experiments import budgets
from llmtutor.experiments.budgets import BUDGETS, EPOCHS, WIDTHS, n_tokens, repeated_run
from llmtutor.experiments.studies import n_params
from llmtutor.experiments.study import Record


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_size_spends_the_budget(budget: str, whole) -> None:
    for d in WIDTHS[budget]:
        spent = 6 * n_params(d) * n_tokens(budget, d)
        assert spent == pytest.approx(BUDGETS[budget], rel=1e-4)
        for result in whole("isoflop").results(budget=budget, d_model=d):
            assert 0 <= n_tokens(budget, d) - result["n_tokens"] < 1024  # whole batches
            assert result["n_params"] == n_params(d)


def test_the_best_size_of_a_budget_is_found_seed_by_seed() -> None:
    """Losses of two seeds are parabolas around 16,000 and 32,000 parameters."""
    runs = [
        {
            "settings": {"budget": "small", "d_model": d, "seed": seed},
            "result": {"valid_loss": 2 + seed + np.log(n_params(d) / best) ** 2},
        }
        for seed, best in ((0, 16_000), (1, 32_000))
        for d in WIDTHS["small"]
    ]
    record = Record("isoflop", "", {}, "", [], runs)
    assert budgets.losses_of(record, "small")[8].keys() == {0, 1}
    first, second = budgets.best_sizes(record, "small")
    assert first == pytest.approx((16_000, 2)) and second == pytest.approx((32_000, 3))
    assert budgets.best_sizes(record, "small", 3)[0] == pytest.approx((16_000, 2))
    record.runs.pop()  # the last width of the second seed is still to come
    assert len(budgets.best_sizes(record, "small")) == 1


def test_the_power_with_which_the_best_size_grows() -> None:
    """Parabolas whose lowest points grow as the root of the budget, in both seeds."""
    best = {b: 14_000 * (flops / 8e10) ** 0.5 for b, flops in BUDGETS.items()}
    runs = [
        {
            "settings": {"budget": b, "d_model": d, "seed": seed},
            "result": {"valid_loss": 2 + np.log(n_params(d) / best[b]) ** 2},
        }
        for seed in range(2)
        for b in BUDGETS
        for d in WIDTHS[b]
    ]
    record = Record("isoflop", "", {}, "", [], runs)
    for n_sizes in (3, 5):
        assert budgets.growth(record, n_sizes) == pytest.approx([0.5, 0.5])


def test_the_best_size_of_a_budget_is_not_an_end(whole) -> None:
    for budget, widths in WIDTHS.items():
        losses = [
            np.mean([r["valid_loss"] for r in whole("isoflop").results(**at)])
            for at in ({"budget": budget, "d_model": d} for d in widths)
        ]
        assert 0 < int(np.argmin(losses)) < len(widths) - 1


def test_repeated_text_is_the_beginning_alone(monkeypatch, whole) -> None:
    seen: list[int] = []
    plain = budgets.random_batches

    def spied(ids, *args, **kwargs):
        seen.append(len(ids))
        return plain(ids, *args, **kwargs)

    monkeypatch.setattr(budgets, "random_batches", spied)
    monkeypatch.setattr(budgets, "REPEATED_STEPS", 8)
    monkeypatch.setattr(budgets, "VALID_WINDOWS", 8)
    run = repeated_run(epochs=4, lr=0.01, seed=0)
    assert seen == [run["different"]] == [8 * 1024 // 4] and set(run["marks"]) == {
        "2",
        "4",
        "6",
        "8",
    }
    assert set(EPOCHS) == {run["settings"]["epochs"] for run in whole("repeated").runs}


def test_a_size_that_is_added_later_gets_the_rate_of_its_own_search(monkeypatch) -> None:
    """A study may grow: what is in its plan stays, what is missing comes from the search."""
    runs = [
        {"settings": {"budget": "small", "d_model": d, "seed": 100}, "result": {"lr": lr}}
        for d, lr in ((8, 0.05), (16, 0.03))
    ]
    found = Record("isoflop-rates", "", {}, "", [], runs)
    monkeypatch.setattr(budgets, "load_record", lambda name: found)
    study = budgets.ISOFLOP[1]
    assert study.plan({}) == {"lr": {"small": {"8": 0.05, "16": 0.03}}}
    assert study.plan({"lr": {"small": {"8": 0.04}}}) == {"lr": {"small": {"16": 0.03}}}
    assert study.plan({"lr": {"small": {"8": 0.04, "16": 0.02}}}) == {}


def test_every_point_was_tuned(whole) -> None:
    plan = whole("isoflop").plan["lr"]
    for run in whole("isoflop-rates").runs:
        result, settings = run["result"], run["settings"]
        tried = [float(lr) for lr in result["losses"]]
        assert min(tried) < result["lr"] < max(tried)
        assert plan[settings["budget"]][str(settings["d_model"])] == result["lr"]
