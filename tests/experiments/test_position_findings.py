"""What is asked of the records of chapter 05, on records made up with known answers."""

import math

import numpy as np
import pytest
import torch

from llmtutor.experiments import position_findings as found
from llmtutor.experiments.positions import LONG, PIECE, PUZZLE_MARKS, SCHEMES
from llmtutor.experiments.study import Record

PIECES = LONG // PIECE


def record(runs: list[tuple[dict, dict]]) -> Record:
    made = [{"settings": s, "result": r, "environment": 0} for s, r in runs]
    return Record("made-up", "", {}, "", [{}], made)


@pytest.fixture
def text() -> Record:
    """Losses of ``none`` are 2 nats and a little luck of the seed; ``t5`` gets by 0.5 better beyond
    the trained length, ``learned`` by 1 worse, and ``rope`` is better everywhere by 0.1."""
    runs = []
    for seed in range(5):
        luck = 0.01 * (-1) ** seed * (seed + 1)
        for scheme in SCHEMES:
            base = 2 + luck - 0.1 * (scheme == "rope") + 0.001 * seed * (scheme == "t5")
            beyond = {"t5": -0.5, "learned": 1.0}.get(scheme, 0.0) + 0.001 * luck
            long = [base + beyond * (8 * i >= 64) for i in range(PIECES)]
            runs.append(
                ({"scheme": scheme, "lr": 0.01, "seed": seed},
                 {"valid_loss": base, "short": long[:8], "long": long})
            )  # fmt: skip
    return record(runs)


def test_seeds_are_paired_and_losses_are_in_bits(text: Record) -> None:
    assert found.bits(text)["none"][0] == pytest.approx(2.01 / math.log(2))
    gaps = found.against(text, "none")
    assert set(gaps) == set(SCHEMES) - {"none"} and gaps["rope"].n_seeds == 5
    assert gaps["rope"].difference == pytest.approx(-0.1 / math.log(2))
    assert gaps["rope"].verdict == "better" and gaps["alibi"].verdict == "not distinguishable"
    assert set(found.against(text, "rope")) == set(SCHEMES) - {"rope"}


def test_what_lies_beyond_is_compared_with_what_was_trained(text: Record) -> None:
    gaps = found.farther(text)
    assert gaps["t5"].difference == pytest.approx(-0.5 / math.log(2), abs=1e-3)
    assert (gaps["t5"].verdict, gaps["learned"].verdict) == ("better", "worse")
    near, far = (found.stretch(text, "learned", part) for part in (found.NEAR, found.FAR))
    assert far[3] - near[3] == pytest.approx(1 / math.log(2), abs=1e-3)
    assert sum(b - a for a, b in found.STRETCHES.values()) == LONG
    places = found.by_place(text)["learned"]
    assert len(places) == PIECES
    assert places[8] - places[7] == pytest.approx(1 / math.log(2), abs=0.01)


def test_shares_and_losses_of_the_puzzle() -> None:
    marks = {str(step): 1000.0 / step for step in PUZZLE_MARKS}
    runs = [
        ({"scheme": scheme, "lr": 0.01, "seed": seed},
         {"copy": 1.0, "reverse": 0.5 + 0.1 * seed, "marks": marks})
        for scheme in SCHEMES for seed in range(3)
    ]  # fmt: skip
    made = record(runs)
    assert found.shares(made, "t5", "reverse") == pytest.approx({0: 0.5, 1: 0.6, 2: 0.7})
    assert found.by_step(made)["none"] == pytest.approx([1000 / step for step in PUZZLE_MARKS])


def test_models_that_count_see_no_more_than_the_window(monkeypatch) -> None:
    ids = np.tile(np.array([0, 1, 1, 2], np.uint16), 200)
    monkeypatch.setattr(found, "tokens", lambda: (ids, ids[:120], 3))
    monkeypatch.setattr(found, "WINDOWS", 6)
    found.counted.cache_clear()
    bits = found.counted(8)
    found.counted.cache_clear()
    assert list(bits) == ["bigram", "trigram", "4-gram"]
    # After 1 comes 1 or 2: one bit for half of the tokens. Two characters tell, three as well.
    assert 0.4 < bits["bigram"] < 0.7 and bits["trigram"] < 0.2


def test_who_crosses_letters_off_is_right_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: two different letters, two that are alike, and 0, 0, 1: right at 2/3, 1/2, 1."""
    different = torch.tensor([[0, 1]] * 4)
    monkeypatch.setattr(found, "ASKED", 2)
    monkeypatch.setattr(found, "puzzles", lambda texts, generator: (None, different))
    assert found.crossing_off(4) == pytest.approx((3 / 4, math.log(2) / 2))
    monkeypatch.setattr(found, "puzzles", lambda texts, generator: (None, different * 0))
    assert found.crossing_off(5) == (1, 0)
    monkeypatch.setattr(found, "ASKED", 3)
    monkeypatch.setattr(
        found, "puzzles", lambda texts, generator: (None, torch.tensor([[0, 0, 1]]))
    )
    of_three = math.log(3) - 2 / 3 * math.log(2)
    assert found.crossing_off(6) == pytest.approx((13 / 18, (of_three + math.log(2)) / 3))
