"""What is read from the record of context extension: means, bits, pairs of seeds."""

import math

import pytest

from llmtutor.experiments import context_extension as study
from llmtutor.experiments.positions import LONG, PIECE, SCALINGS
from llmtutor.experiments.study import Record


def both(short: float, near: float, far: float) -> dict:
    return {"short": 8 * [short], "long": 8 * [near] + 24 * [far]}


def made(seed: int) -> dict:
    """Without a scaling 2 nats, 3 beyond; with one 2.2 and 2.5, the other 0.01 apart each."""
    luck = 0.1 * seed  # shared by all of a seed: pairs cancel it
    result = {study.FROM_START: both(1.9 + luck, 1.9 + luck, 1.9 + luck)}
    for i, name in enumerate(SCALINGS):
        price, gain = (0.0, 1.0) if name == study.PLAIN else (0.2 + 0.01 * i, 0.5)
        wobble = 0.001 * (seed % 2) * i
        result[name] = {
            "before": both(2 + luck + price, 2 + luck, 2 + luck + gain + wobble),
            "after": both(2 + luck + wobble, 2 + luck, 1.9 + luck + 0.1 * i + wobble),
        }
    return {"settings": {"lr": 0.01, "seed": seed}, "result": result}


RECORD = Record("context-extension", "", {}, "", [{}], [made(seed) for seed in range(5)])


def test_a_curve_is_the_mean_of_the_seeds_piece_by_piece() -> None:
    curve = study.curve(RECORD, "no scaling", "before")
    assert len(curve) == len(study.PLACES) == LONG // PIECE
    assert curve[0] == pytest.approx(2.2) and curve[-1] == pytest.approx(3.2)
    assert study.curve(RECORD, study.FROM_START, "before") == pytest.approx(32 * [2.1])
    assert study.PLACES[0] == 4 and study.PLACES[-1] == 252


def test_losses_are_bits_of_the_short_windows_or_of_what_lies_beyond_them() -> None:
    short = study.losses(RECORD, "no scaling", "before", "short")
    beyond = study.losses(RECORD, "no scaling", "before", "beyond")
    assert short[3] == pytest.approx(2.3 / math.log(2))
    assert beyond[3] == pytest.approx(3.3 / math.log(2))


def test_scalings_are_compared_with_none_seed_by_seed() -> None:
    gaps = study.gaps(RECORD, "before", "beyond")
    assert "no scaling" not in gaps and len(gaps) == len(SCALINGS) - 1
    assert all(gap.verdict == "better" for gap in gaps.values())
    prices = study.gaps(RECORD, "before", "short")
    assert all(gap.verdict == "worse" for gap in prices.values())
    assert prices["interpolation"].difference == pytest.approx(0.21 / math.log(2))


def test_after_the_training_all_are_held_against_the_model_before_and_the_long_one() -> None:
    assert study.prices(RECORD)["no scaling"].verdict == "not distinguishable"
    behind = study.behind(RECORD, "beyond")
    assert behind["no scaling"].difference == pytest.approx(0)
    assert behind["Llama 3"].verdict == "worse"
