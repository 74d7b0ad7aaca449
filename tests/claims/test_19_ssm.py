"""Numbers of chapter 19 that no output shows: folded answers, and what the record says."""

from collections import Counter
from itertools import product

import pytest
import torch

from llmtutor.experiments.state_space import (
    ASKED,
    LENGTHS,
    LETTERS,
    LONGER,
    MIXERS,
    NO_CHOICE,
    copier,
)
from llmtutor.experiments.study import Record, load_record
from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.layers.recurrent.s4d import S4D, causal_convolution
from llmtutor.model.accounting import cache_bytes, parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import preset


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("state-space")


def test_letters_that_a_state_cannot_hold() -> None:
    small = copier("mamba", 16).model.config
    assert cache_bytes(small, 1, 1) == 4 * 1408 == 5632
    assert 8 * 5632 // 3 == 15_018
    assert round(8 * cache_bytes(preset("mamba-130m"), 1, 1, torch.bfloat16) / 3e6, 1) == 3.7


def test_shares_of_the_folded_answer() -> None:
    """Shares of eight words in the last state, for gates z."""

    def shares(z: list[float]) -> list[int]:
        g = torch.sigmoid(torch.tensor(z))
        later = [(1 - g[i + 1 :]).prod() for i in range(len(z))]
        return [round(100 * float(a * b)) for a, b in zip(g, later, strict=True)]

    assert shares([4.0] + 7 * [-8.0])[0] == 98
    assert shares(8 * [4.0])[-1] == 98
    assert (shares(8 * [-2.0])[-1], shares(8 * [-2.0])[0]) == (12, 5)


def test_two_blocks_of_mamba_are_one_with_attention() -> None:
    """12 d² in matrices, within a tenth."""
    mamba = ModelConfig.uniform(9, 8, 2, 768, 12, 1, mixer=MambaConfig(), ffn="no-ffn")
    other = ModelConfig.uniform(9, 8, 1, 768, 12, 4 * 768, ffn="gelu")
    assert parameters(mamba).total / parameters(other).total == pytest.approx(1, abs=0.1)


def test_state_after_a_hundred_tokens() -> None:
    """A step of 0.01 keeps a third for a hundred tokens."""
    assert 0.36 < (torch.exp(torch.tensor(-0.01)) ** 100) < 0.38


def test_models_of_the_record_are_of_one_size(record: Record) -> None:
    runs = [run for run in record.runs if run["settings"]["mixer"] in MIXERS]
    sizes = {run["result"]["parameters"] for run in runs}
    assert min(sizes) > 17_000 and max(sizes) < 1.01 * min(sizes)
    (unchosen,) = {run["parameters"] for run in record.results(mixer=NO_CHOICE)}
    assert unchosen > 0.97 * min(sizes)
    assert {run["settings"]["length"] for run in record.runs} == set(LENGTHS)
    assert {run["settings"]["mixer"] for run in record.runs} == {*MIXERS, NO_CHOICE}


def test_what_is_said_of_the_runs(record: Record) -> None:
    """Copying is easy for all; selective copying hardly touches Mamba, and S4D more and more."""
    for run in record.runs:
        settings, right = run["settings"], run["result"]["accuracy"]
        if settings["mixer"] == NO_CHOICE:
            continue
        if settings["task"] == "copying":
            assert right >= 0.99
        elif settings["mixer"] == "mamba":
            assert right >= 0.98
        elif settings["mixer"] == "attention":
            assert (right >= 0.999) == (settings["length"] == 16)
    for seed in range(3):
        s4d = [
            record.results(task="selective", mixer="s4d", length=n, seed=seed)[0]["accuracy"]
            for n in LENGTHS
        ]
        assert s4d == sorted(s4d, reverse=True) and s4d[-1] > 0.7


def test_a_mamba_without_its_choice_is_no_better_than_s4d(record: Record) -> None:
    """It says 79 % of the letters, S4D 86 %, and their ranges overlap."""

    def right(mixer: str) -> list[float]:
        found = record.results(task="selective", mixer=mixer, length=32)
        assert len(found) == 3
        return [run["accuracy"] for run in found]

    without, s4d = right(NO_CHOICE), right("s4d")
    assert round(100 * sum(without) / 3) == 79 and round(100 * sum(s4d) / 3) == 86
    assert min(s4d) < max(without) < max(s4d)


def test_no_fixed_step_lets_a_letter_stand_out_of_the_noise() -> None:
    """The smaller the step, the nearer to a plain sum: a letter of 5 against a noise of 10."""
    ratios = []
    for step in (0.02, 0.01, 0.001, 1e-5):
        keep = torch.tensor(-step, dtype=torch.float64).exp()
        weights = (1 - keep) * keep ** torch.arange(101)  # of the newest blank, ..., of the letter
        ratios.append(float(5 * weights[-1] / weights[:-1].norm()))
    assert ratios == sorted(ratios) and ratios[0] < 0.15
    assert ratios[-1] == pytest.approx(0.5, abs=1e-3)


def test_a_linear_state_can_count_letters_past_any_number_of_blanks() -> None:
    """The slowest wave of S4D hardly fades: fed with 1 for a letter, it counts them."""
    layer = S4D(1, 1)
    with torch.no_grad():
        layer.log_step.fill_(torch.tensor(0.001).log())
        kernel = layer.kernel(64)[:, 0] / layer.kernel(1)[0, 0]
    assert 0.96 < kernel[-1] < 0.98
    text = torch.zeros(1, 64, 1)
    text[0, [3, 30, 31, 50]] = 1
    counts = causal_convolution(text, kernel[:, None])
    assert counts[0, [3, 29, 30, 31, 49, 50, 63], 0].round().tolist() == [1, 1, 2, 3, 3, 4, 4]


def test_more_steps_teach_the_others_as_well() -> None:
    """Attention says all letters, S4D 97 %."""
    longer = load_record("state-space-longer")
    assert all(run["settings"]["steps"] == LONGER == 3200 for run in longer.runs)
    assert [run["accuracy"] for run in longer.results(mixer="attention")] == pytest.approx(
        3 * [1.0], abs=5e-4
    )
    s4d = [run["accuracy"] for run in longer.results(mixer="s4d")]
    assert len(s4d) == 3 and sum(s4d) / 3 == pytest.approx(0.97, abs=0.005)


def test_best_guess_of_a_model_that_does_not_know_the_order() -> None:
    """At each mark the letter that came most often, 1.65 times of 4: 41 %."""
    most = [max(Counter(text).values()) for text in product(range(LETTERS), repeat=ASKED)]
    assert round(sum(most) / len(most), 2) == 1.65
    assert round(100 * sum(most) / len(most) / ASKED) == 41
