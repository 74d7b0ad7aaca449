"""Claims of others: each answer on made-up findings, and on the record what SciPy says."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmtutor.experiments.choosing.claims import CLAIMS, FALLS_BEHIND, judged, quality, speed
from llmtutor.experiments.choosing.cost import Ratio
from llmtutor.experiments.choosing.options import OPTIONS
from llmtutor.experiments.choosing.plan import NAME, RATE_SEED
from llmtutor.experiments.study import Record, load_record


def finding(verdict: str) -> Any:
    gap = SimpleNamespace(difference=0.01, interval=(-0.01, 0.03))
    return SimpleNamespace(verdict=verdict, gap=gap)


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        ("worse", "holds"),
        ("worse, by little", "holds"),
        ("better", "does not hold"),
        ("as good", "does not hold"),
        ("cannot be told", "cannot be told"),
    ],
)
def test_a_claim_on_quality_is_answered_by_the_verdict(verdict: str, answer: str) -> None:
    found, why = quality("gpt2", *FALLS_BEHIND)({"gpt2": finding(verdict)}, {})
    assert found == answer and why == "gpt2: +0.010 bits per byte [-0.010, +0.030]"


@pytest.mark.parametrize(
    ("interval", "answer"),
    [
        ((0.97, 1.02), "holds"),
        ((0.97, 1.08), "cannot be told"),
        ((1.06, 1.08), "does not hold"),
        ((0.80, 0.90), "does not hold"),
    ],
)
def test_a_claim_on_speed_is_answered_by_the_whole_interval(
    interval: tuple[float, float], answer: str
) -> None:
    costs = {"gqa-2": {"train_tokens_per_second": Ratio(1.0, interval, 1000.0, (900.0, 1100.0))}}
    assert speed("gqa-2", 0.95, 1.05)({}, costs)[0] == answer


def test_what_was_not_measured_cannot_be_told() -> None:
    found = judged(Record(NAME, "", {}, "", [], []), {})
    assert [one.claim for one in found] == list(CLAIMS)
    assert {one.answer for one in found} == {"cannot be told"}
    assert {claim.system for claim in CLAIMS} == {"A", "D", "E"}


FLOPS = {"small": 10**12, "middle": 3 * 10**12, "large": 10**13}


def made_up(gap: float, size: str, n_seeds: int = 5) -> list[dict[str, Any]]:
    noise = np.random.default_rng(0).normal(0, 0.002, (n_seeds, 2))
    return [
        {
            "settings": {"size": size, "option": option, "lr": 0.1, "seed": seed},
            "result": {"bits_per_byte": 2.0 + add + noise[seed, i], "train_flops": FLOPS[size]},
        }
        for seed in range(n_seeds)
        for i, (option, add) in enumerate({"baseline": 0.0, "gpt2": gap}.items())
    ]


def test_the_largest_size_that_can_tell_answers() -> None:
    runs = made_up(0.1, "small") + made_up(-0.1, "middle") + made_up(0.0, "large", n_seeds=2)
    found = next(one for one in judged(Record(NAME, "", {}, "", [], runs), {}) if "gpt2" in one.why)
    assert (found.size, found.answer) == ("middle", "does not hold")


def test_claims_are_about_options() -> None:
    whys = [claim.judge({}, {})[1] for claim in CLAIMS]
    named = [why.split(":")[0] for why in whys if "yet" in why]
    assert len(named) >= 6 and set(named) <= set(OPTIONS)


def test_answers_on_the_record_follow_from_the_raw_runs() -> None:
    """What was told of quality: the mean of the raw runs is the gap that is named, and its sign the
    answer."""
    record = load_record(NAME)
    for one in judged(record, {}):
        option = one.why.split(":")[0]
        if one.answer == "cannot be told":
            continue
        losses: dict[str, list[float]] = {}
        for run in record.runs:
            settings = run["settings"]
            if settings["size"] == one.size and settings["seed"] != RATE_SEED:
                losses.setdefault(settings["option"], []).append(run["result"]["bits_per_byte"])
        baseline = losses["baseline"] + losses.get("baseline again", [])
        gap = np.mean(losses[option]) - np.mean(baseline)
        if len(losses[option]) == len(losses["baseline"]):  # else seeds are weighed
            assert f"{gap:+.3f} bits per byte" in one.why
