"""What chapter 10 reads out of the records of the race, on small records made by hand."""

from math import inf, log
from typing import Any

import pytest

from llmtutor.experiments import racing_verdicts as verdicts
from llmtutor.experiments.study import Record


def record(name: str, *runs: tuple[dict[str, Any], dict[str, Any]]) -> Record:
    made = [{"settings": s, "result": r, "environment": 0} for s, r in runs]
    return Record(name, "", {}, "", [{}], made)


def bits(n: float) -> float:
    """In nats."""
    return n * log(2)


@pytest.fixture
def records(monkeypatch) -> None:
    base = {"sgd": 4.0, "momentum": 3.5, "adamw": 3.0, "muon": 2.0}
    worse = {"both": 0.0, "no warm-up": 0.0, "no decay": 0.5}
    racing = record(
        "racing",
        *(
            (
                {"rule": rule, "plan": plan, "seed": seed},
                {"valid_loss": bits(loss + more + 0.01 * seed + 0.001 * (seed % 2) * len(rule))},
            )
            for seed in (2, 1, 0)
            for plan, more in worse.items()
            for rule, loss in base.items()
        ),
    )
    undecayed = record(
        "racing-undecayed",
        *(
            (
                {"rule": f"{rule}, undecayed", "plan": "both", "seed": seed},
                {"valid_loss": bits(loss + 0.01 * seed)},
            )
            for seed in range(3)
            for rule, loss in (("sgd", 3.2), ("momentum", 3.1))
        ),
    )
    muon = {"rule": "muon", "plan": "both", "seed": 100}
    rates = record(
        "racing-rates",
        ({**muon, "adam_lr": 0.1}, {"valid_loss": bits(3), "losses": {"0.2": bits(3)}}),
        (
            {**muon, "adam_lr": 0.4},
            {"valid_loss": bits(2), "losses": {"0.4": None, "0.2": bits(2)}},
        ),
    )
    known = {r.study: r for r in (racing, undecayed, rates)}
    monkeypatch.setattr(verdicts, "load_record", known.__getitem__)


def test_losses_are_in_bits_and_by_seed(records) -> None:
    assert list(verdicts.by_seed("AdamW")) == [0, 1, 2]
    assert verdicts.by_seed("SGD") == pytest.approx({0: 3.2, 1: 3.21, 2: 3.22})
    assert verdicts.by_seed("AdamW", "no decay")[0] == pytest.approx(3.5)


def test_of_a_search_the_curve_beside_the_best_adam_is_shown(records) -> None:
    found = verdicts.searched("Muon")
    assert list(found) == [0.2, 0.4] and found[0.4] == inf and found[0.2] == pytest.approx(2)
    beside = verdicts.beside_muon(verdicts.load_record("racing-rates"))
    assert beside == pytest.approx({0.1: 3, 0.4: 2})


def test_each_rule_is_held_against_the_one_named(records) -> None:
    race = verdicts.race()
    assert next(iter(race)) == "SGD, L2 − SGD" and race["SGD, L2 − SGD"].verdict == "worse"
    muon = race["Muon − AdamW"]
    assert muon.difference == pytest.approx(-1, abs=0.01) and muon.verdict == "better"
    assert all(pair.adjusted_p >= pair.p_value for pair in race.values())


def test_a_rule_is_held_against_itself(records) -> None:
    gaps = verdicts.ablations()
    assert gaps["AdamW, no decay"].difference == pytest.approx(0.5)
    assert gaps["Muon, no warm-up"].verdict == "not distinguishable"


def test_the_noise_scale_is_the_ratio_of_means() -> None:
    parts = ({"signal": 1.0, "noise": 8.0}, {"signal": 3.0, "noise": 8.0})
    runs = [({"seed": i}, {"noise": {"50": part}}) for i, part in enumerate(parts)]
    found = verdicts.noise(record("gradient-noise", *runs))
    assert found == {50: {"signal": 2.0, "noise": 8.0, "windows": 4.0}}


def test_batches_come_in_order_with_their_rates() -> None:
    runs = [
        ({"batch_size": batch, "lr": lr}, {"valid_loss": bits(batch + lr)})
        for batch in (16, 4)
        for lr in (0.5, 0.25)
    ]
    found = verdicts.by_batch(record("batch-size", *runs))
    assert list(found) == [4, 16] and found[4] == pytest.approx({0.5: 4.5, 0.25: 4.25})
