"""Filters against those of transformers and cases by hand; draws against their distribution."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmtutor.generate import sampling
from llmtutor.generate.sampling import PAD, Sampler

N_DRAWS = 100_000

IDS = torch.tensor([[3, 3, 0, 7, 1]]).repeat(64, 1)
CASES = [
    *[({"temperature": t}, TemperatureLogitsWarper(t)) for t in (0.1, 0.7, 3.0)],
    *[({"top_k": k}, TopKLogitsWarper(k)) for k in (1, 5, 100, 1000)],
    *[({"top_p": p}, TopPLogitsWarper(p)) for p in (0.01, 0.5, 0.9, 0.99, 1.0)],
    *[({"min_p": p}, MinPLogitsWarper(p)) for p in (0.0, 0.02, 0.3, 1.0)],
    *[({"repetition_penalty": p}, RepetitionPenaltyLogitsProcessor(p)) for p in (0.5, 1.2, 2.0)],
]


def random_logits(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(64, 100, generator=random, dtype=torch.float64).to(dtype)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("knob", "theirs"), CASES, ids=lambda c: str(c) if type(c) is dict else "")
def test_each_filter_is_that_of_transformers(knob: dict, theirs, dtype: torch.dtype) -> None:
    logits = random_logits(dtype=dtype)
    before = logits.clone()
    ((name, value),) = knob.items()
    given = (IDS, value) if name == "repetition_penalty" else (value,)
    ours = getattr(sampling, name)(logits, *given)
    assert ours.dtype == dtype and torch.equal(logits, before)
    assert_same(ours, theirs(IDS, logits.clone()))
    assert torch.equal(Sampler(**knob).filtered(logits, IDS), ours)


def test_all_knobs_together_are_applied_in_the_same_order_as_there() -> None:
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.8),
            TopKLogitsWarper(40),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.05),
        ]
    )
    ours = Sampler(repetition_penalty=1.3, temperature=0.8, top_k=40, top_p=0.9, min_p=0.05)
    for seed in range(20):
        logits = random_logits(seed, torch.float64)
        assert_same(ours.filtered(logits, IDS), theirs(IDS, logits.clone()))


# --- by hand -------------------------------------------------------------------------------------

HALVES = torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("knobs", "probs"),
    [
        ({}, [0.1, 0.5, 0.15, 0.25]),
        ({"temperature": 0.5}, [2 / 69, 50 / 69, 4.5 / 69, 12.5 / 69]),  # squares, normalised
        ({"top_k": np.int64(2)}, [0, 2 / 3, 0, 1 / 3]),
        ({"top_p": 0.4}, [0, 1, 0, 0]),
        ({"top_p": 0.6}, [0, 2 / 3, 0, 1 / 3]),
        ({"top_p": 0.8}, [0, 5 / 9, 1.5 / 9, 2.5 / 9]),
        ({"min_p": 0.4}, [0, 2 / 3, 0, 1 / 3]),
        ({"min_p": 0.25}, [0, 5 / 9, 1.5 / 9, 2.5 / 9]),
        ({"top_k": 3, "top_p": 0.83}, [0, 2 / 3, 0, 1 / 3]),  # of the three, two hold 5/6
        ({"greedy": True}, [0, 1, 0, 0]),
    ],
    ids=str,
)
def test_cases_by_hand(knobs: dict, probs: list[float]) -> None:
    got = Sampler(**knobs).probabilities(HALVES, torch.tensor([[0]]))
    torch.testing.assert_close(got, torch.tensor([probs], dtype=torch.float64))


def test_repetition_is_paid_once_and_padding_is_no_token() -> None:
    logits = torch.tensor([[4.0, -4.0, 2.0, -2.0], [4.0, -4.0, 2.0, -2.0]])
    ids = torch.tensor([[PAD, 0, 1], [3, 3, 3]])
    got = sampling.repetition_penalty(logits, ids, 2.0)
    assert got.tolist() == [[2, -8, 2, -2], [4, -4, 2, -4]]


def test_presence_is_paid_once_and_frequency_each_time() -> None:
    """The loop of OpenAI's definition: logit − count · frequency − (count > 0) · presence."""
    logits = random_logits(dtype=torch.float64)
    ids = torch.randint(8, (64, 12), generator=torch.Generator().manual_seed(1))
    ids[::2, :5] = PAD
    for presence, frequency in ((0.6, 0.0), (0.0, 1.5), (-2.0, 0.3)):
        want = logits.clone()
        for row, text in enumerate(ids.tolist()):
            for token in range(100):
                count = text.count(token)
                want[row, token] -= count * frequency + (count > 0) * presence
        sampler = Sampler(presence_penalty=presence, frequency_penalty=frequency)
        torch.testing.assert_close(sampler.filtered(logits, ids), want)
        greedy = Sampler(greedy=True, presence_penalty=presence, frequency_penalty=frequency)
        assert torch.equal(greedy.choose(logits, ids), want.argmax(-1))
    # Behind the repetition penalty and before the temperature.
    every = Sampler(repetition_penalty=2, presence_penalty=1, frequency_penalty=0.5, temperature=2)
    got = every.filtered(torch.tensor([[4.0, -4.0]]), torch.tensor([[0, 0, PAD]]))
    assert got.tolist() == [[(4 / 2 - 1 - 2 * 0.5) / 2, -4 / 2]]


def test_greedy_takes_the_first_of_equals_and_no_knob_but_the_penalty_changes_it() -> None:
    equals = torch.tensor([[0.0, 2.0, 2.0], [1.0, 0.0, 1.0]])
    assert Sampler(greedy=True).choose(equals, torch.zeros(2, 1).long()).tolist() == [1, 0]
    assert Sampler(greedy=True).filtered(equals, equals.long()).isfinite().sum(1).tolist() == [1, 1]
    logits = random_logits()
    for knobs in ({}, {"temperature": 5.0}, {"top_k": 3, "top_p": 0.5, "min_p": 0.9}):
        chosen = Sampler(greedy=True, **knobs).choose(logits, IDS)
        assert torch.equal(chosen, logits.argmax(-1))
    near = torch.tensor([[2.0, 1.9]])
    penalised = Sampler(greedy=True, repetition_penalty=1.1)
    assert penalised.choose(near, torch.tensor([[0]])).tolist() == [1]


def test_low_temperatures_end_in_greedy_and_equals_stay_equal() -> None:
    logits = random_logits()
    chosen = Sampler(temperature=1e-4).choose(logits, IDS, torch.Generator().manual_seed(0))
    assert torch.equal(chosen, logits.argmax(-1))
    assert sampling.top_k(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), 2).isfinite().sum() == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_settings_that_a_number_format_rounds_to_0_or_infinity(dtype: torch.dtype) -> None:
    logits = torch.tensor([[3.0, 1e-3, 3.0, -math.inf], [0.0, -80.0, -90.0, 0.0]], dtype=dtype)
    nothing = torch.zeros(2, 1, dtype=torch.int64)
    for tiny in (1e-21, 1e-40, 1e-310, 5e-324):
        cold = Sampler(temperature=tiny).probabilities(logits, nothing)
        assert cold.tolist() == [[0.5, 0, 0.5, 0], [0.5, 0, 0, 0.5]]
        assert Sampler(top_p=tiny).probabilities(logits, nothing).amax(-1).tolist() == [1, 1]
    hot = Sampler(temperature=1e308).probabilities(logits, nothing)
    torch.testing.assert_close(hot.float(), torch.tensor([[1 / 3] * 3 + [0.0], [1 / 4] * 4]))


def test_logits_of_few_bits_are_filtered_and_drawn_in_float32() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 32_000, generator=random).bfloat16()
    exact, seen = logits.float(), torch.tensor([[0, 1, 2]])
    for name, value in [("temperature", 0.7), ("top_k", 9), ("top_p", 0.99), ("min_p", 0.3)]:
        kept = getattr(sampling, name)(logits, value)
        assert torch.equal(kept, getattr(sampling, name)(exact, value))
    mass = exact.softmax(-1)[sampling.top_p(logits, 0.99).isfinite()].sum().item()
    assert mass == pytest.approx(0.99, abs=1e-4)
    assert torch.equal(
        sampling.repetition_penalty(logits, seen, 1.3),
        sampling.repetition_penalty(exact, seen, 1.3),
    )
    draws = [
        [Sampler().choose(x, seen, torch.Generator().manual_seed(s)).item() for s in range(50)]
        for x in (logits, exact)
    ]
    assert draws[0] == draws[1]


# --- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(),
        Sampler(temperature=0.6),
        Sampler(top_k=7),
        Sampler(top_p=0.8),
        Sampler(min_p=0.1),
        Sampler(temperature=1.5, top_k=12, top_p=0.9, repetition_penalty=1.4),
    ],
    ids=str,
)
def test_100_000_draws_pass_a_chi_square_test(sampler: Sampler, assert_drawn_from) -> None:
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[4, 9, 4]])
    probs = sampler.probabilities(logits, ids)[0]
    generator = torch.Generator().manual_seed(2)
    chosen = sampler.choose(logits.expand(N_DRAWS, -1), ids.expand(N_DRAWS, -1), generator)
    counts = chosen.bincount(minlength=20)
    assert_drawn_from(counts, probs)
    with pytest.raises(AssertionError):  # the test would notice a distribution a little off
        assert_drawn_from(counts, sampling.temperature(probs.log()[None], 0.9).softmax(-1)[0])


def test_rows_are_drawn_each_for_itself_and_a_seed_repeats_them() -> None:
    logits = torch.zeros(2, 4).masked_fill(torch.eye(4, dtype=torch.bool)[:2], -math.inf)
    probs = logits.softmax(-1)
    draws = [sampling.draw(probs, torch.Generator().manual_seed(s)).tolist() for s in range(200)]
    assert {row[0] for row in draws} == {1, 2, 3} and {row[1] for row in draws} == {0, 2, 3}
    assert sampling.draw(probs, torch.Generator().manual_seed(7)).tolist() == draws[7]


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("temperature", 0, r"above 0, got 0; .* greedily"),
        ("temperature", -1.0, "above 0, got -1.0"),
        ("temperature", math.nan, "finite number, got nan"),
        ("temperature", math.inf, "finite number, got inf"),
        ("temperature", "0.8", "finite number, got '0.8'"),
        ("top_k", 0, "at least 1, got 0"),
        ("top_k", 2.5, "whole number, got 2.5"),
        ("top_k", True, "got True"),
        ("top_p", 0, r"\(0, 1\], got 0"),
        ("top_p", -0.1, r"\(0, 1\], got -0.1"),
        ("top_p", 1.1, r"\(0, 1\], got 1.1"),
        ("top_p", math.nan, "finite number, got nan"),
        ("top_p", True, "finite number, got True"),
        ("min_p", -0.1, r"\[0, 1\], got -0.1"),
        ("min_p", 1.1, r"\[0, 1\], got 1.1"),
        ("repetition_penalty", 0, "lie in 1e-6 … 1e6, got 0"),
        ("repetition_penalty", -1.0, "lie in 1e-6 … 1e6, got -1.0"),
        ("repetition_penalty", 1e300, r"lie in 1e-6 … 1e6, got 1e\+300"),
        ("presence_penalty", -2.1, "lie in -2 … 2, got -2.1; 0 changes nothing"),
        ("frequency_penalty", 3, "lie in -2 … 2, got 3; 0 changes nothing"),
    ],
)
def test_settings_outside_their_range(knob: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"{knob} must .*{message}"):
        Sampler(**{knob: value})
    given = (IDS, value) if "penalty" in knob else (value,)
    with pytest.raises(ValueError, match=message):
        getattr(sampling, knob)(random_logits(), *given)


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]], ids=str)
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(greedy=True), Sampler(top_p=0.5)])
def test_logits_without_a_distribution(bad: list[float], sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="found nan, "):
        sampler.choose(torch.tensor([[0.0, 0.0], bad]), torch.zeros(2, 1, dtype=torch.int64))
