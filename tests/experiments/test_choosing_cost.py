"""Costs beside the baseline: what can be computed is, ratios are those of the same round."""

import math

import numpy as np
import pytest
from scipy import stats

from llmtutor.experiments.choosing.cost import (
    COST,
    FIGURES,
    NAME,
    ROUNDS,
    SIZE,
    measure_cost,
    ratios,
    side_by_side,
)
from llmtutor.experiments.choosing.options import OPTIONS, SIZES, Size
from llmtutor.experiments.study import Record, load_record

TINY = Size(16, n_layers=2, n_heads=4, seq_len=32, batch_size=2)


def test_both_sides_are_measured_with_the_same_figures() -> None:
    found = side_by_side("mqa", TINY, turns=2)
    ours, theirs = found["option"], found["baseline"]
    assert set(ours) == set(theirs) == {"n_params", *FIGURES}
    # keys and values of 2 blocks, 32 tokens, heads of 4 channels, 4 bytes a number
    assert (ours["cache_bytes"], theirs["cache_bytes"]) == (2048, 8192)
    assert ours["n_params"] == pytest.approx(theirs["n_params"], rel=0.01)
    for side in found.values():
        assert side["peak_bytes"] > 16 * side["n_params"]
        assert side["train_tokens_per_second"] > 0 and side["decode_tokens_per_second"] > 0


def test_an_unknown_option_is_told_before_a_process_starts() -> None:
    with pytest.raises(ValueError, match="did you mean 'mqa'"):
        measure_cost(option="mqaa", round=0)


def test_a_ratio_is_that_of_the_round_and_its_interval_scipys() -> None:
    speeds = [(90.0, 100.0), (45.0, 50.0), (88.0, 110.0)]  # a slow round is slow for both
    runs = [
        {
            "settings": {"option": "mqa", "round": i},
            "result": {
                "option": dict.fromkeys(FIGURES, ours),
                "baseline": dict.fromkeys(FIGURES, theirs),
            },
        }
        for i, (ours, theirs) in enumerate(speeds)
    ]
    runs.append({**runs[0], "settings": {"option": "gqa-2", "round": 0}})
    found = ratios(Record(NAME, "", {}, "", [], runs))
    assert list(found) == ["mqa"] and list(found["mqa"]) == list(FIGURES)
    ratio = found["mqa"]["train_tokens_per_second"]
    logs = np.log([0.9, 0.9, 0.8])
    low, high = stats.ttest_1samp(logs, 0).confidence_interval()
    assert ratio.mean == pytest.approx(math.exp(logs.mean()))
    assert ratio.interval == pytest.approx((math.exp(low), math.exp(high)))
    low, high = stats.ttest_1samp(np.log([90, 45, 88]), 0).confidence_interval()
    assert ratio.option == pytest.approx((90 * 45 * 88) ** (1 / 3))
    assert ratio.option_interval == pytest.approx((math.exp(low), math.exp(high)))


def test_every_option_but_the_broken_ones_is_measured_in_rounds() -> None:
    runs = COST.runs({})
    names = [
        name
        for name in OPTIONS
        if not name.startswith(("head", "a quarter")) and "retuned" not in name
    ]
    assert runs == [{"option": name, "round": i} for i in range(ROUNDS) for name in names]
    assert SIZE in SIZES and ROUNDS >= 5


def test_the_record_holds_what_can_be_computed() -> None:
    found = ratios(load_record(NAME))
    assert found["baseline"]["cache_bytes"].mean == 1
    assert found["mqa"]["cache_bytes"].mean == pytest.approx(0.25)
    low, high = found["baseline"]["train_tokens_per_second"].interval
    assert 0.9 < low < 1.0 < high < 1.1
