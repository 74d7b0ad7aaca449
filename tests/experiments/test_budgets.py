"""One budget on many sizes, and repeated text."""

import numpy as np
import pytest

from llmtutor.experiments import budgets
from llmtutor.experiments.budgets import BUDGETS, EPOCHS, WIDTHS, n_tokens, repeated_run
from llmtutor.experiments.studies import n_params


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_size_spends_the_budget(budget: str, whole) -> None:
    for d in WIDTHS[budget]:
        spent = 6 * n_params(d) * n_tokens(budget, d)
        assert spent == pytest.approx(BUDGETS[budget], rel=1e-4)
        for result in whole("isoflop").results(budget=budget, d_model=d):
            assert 0 <= n_tokens(budget, d) - result["n_tokens"] < 1024  # whole batches
            assert result["n_params"] == n_params(d)


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


def test_every_point_was_tuned(whole) -> None:
    plan = whole("isoflop").plan["lr"]
    for run in whole("isoflop-rates").runs:
        result, settings = run["result"], run["settings"]
        tried = [float(lr) for lr in result["losses"]]
        assert min(tried) < result["lr"] < max(tried)
        assert plan[settings["budget"]][str(settings["d_model"])] == result["lr"]
