"""Four optimizers: schedules, gradient noise against known distributions, the searches."""

import pytest
import torch

from llmtutor.experiments import racing
from llmtutor.experiments.racing import (
    ADAM_RATES,
    RULES,
    SCHEDULES,
    STEPS,
    noise_run,
    racing_run,
    schedule_of,
    signal_and_noise,
)


def test_schedules_lack_what_they_say() -> None:
    both, sudden, level = map(schedule_of, SCHEDULES)
    assert both(0) < 0.1 and sudden(0) == 1 and level(0) < 0.1
    assert both(STEPS - 1) < 0.11 and sudden(STEPS - 1) < 0.11 and level(STEPS - 1) == 1


def test_signal_and_noise_are_those_of_the_distribution() -> None:
    """Batches of 4 windows: mean (3, 0, 0 …), each window with variance 2 in 500 directions."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.zeros(500)
    mean[0] = 3.0
    batches = [mean + (2 / 4) ** 0.5 * torch.randn(500, generator=generator) for _ in range(400)]
    found = signal_and_noise(batches, batch=4)
    assert found["signal"] == pytest.approx(9, abs=0.5)
    assert found["noise"] == pytest.approx(2 * 500, rel=0.02)


def test_runs_of_a_seed_differ_in_the_rule_alone(monkeypatch) -> None:
    monkeypatch.setattr(racing, "STEPS", 4)
    monkeypatch.setattr(racing, "WINDOWS", 8)
    monkeypatch.setattr(racing, "POINTS", 4)
    monkeypatch.setattr(racing, "NOISE_STEPS", (0, 2))
    monkeypatch.setattr(racing, "NOISE_BATCHES", 4)
    first = {racing_run(rule=rule, lr=0.01, seed=0)["curve"]["loss"][0] for rule in RULES}
    assert len(first) == 1  # the same weights and the same batch
    noise = noise_run(lr=0.01, seed=0)["noise"]
    assert set(noise) == {"0", "2"} and all(part["noise"] > 0 for part in noise.values())


def test_without_decay_sgd_differs_in_nothing_else() -> None:
    for name, own in racing.UNDECAYED.items():
        with_l2 = RULES[name.removesuffix(", undecayed")]
        assert own["optimizer"] == with_l2["optimizer"] == "sgd"
        assert own["settings"] == {**with_l2["settings"], "weight_decay": 0.0}


def test_rates_of_sgd_without_decay_lie_inside_of_what_was_tried(whole) -> None:
    best = whole("racing-undecayed").plan["best"]
    for run in whole("racing-undecayed-rates").runs:
        tried = [float(lr) for lr in run["result"]["losses"]]
        assert min(tried) < run["result"]["lr"] < max(tried)
        assert best[run["settings"]["rule"]]["both"] == {"lr": run["result"]["lr"]}


def test_every_rule_was_tuned_under_every_schedule(whole) -> None:
    rates, best = whole("racing-rates"), whole("racing").plan["best"]
    for rule in RULES:
        for plan in SCHEDULES:
            found = rates.results  # by settings
            runs = [
                (run["settings"].get("adam_lr"), run["result"])
                for run in rates.runs
                if run["settings"]["rule"] == rule and run["settings"]["plan"] == plan
            ]
            assert len(runs) == (len(ADAM_RATES) if rule == "muon" else 1) and found
            adam_lr, result = min(runs, key=lambda run: run[1]["valid_loss"])
            assert best[rule][plan]["lr"] == result["lr"]
            assert best[rule][plan].get("adam_lr") == adam_lr
            tried = [float(lr) for lr in result["losses"]]
            assert min(tried) < result["lr"] < max(tried)
            if adam_lr in (min(ADAM_RATES), max(ADAM_RATES)):  # then it hardly matters
                inner = [r["valid_loss"] for lr, r in runs if lr in ADAM_RATES[1:-1]]
                assert min(inner) < result["valid_loss"] + 0.005
