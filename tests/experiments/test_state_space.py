"""Copying: the texts, models of one size, the record's settings, a run made again."""

import pytest
import torch

from llmtutor.experiments.rates import inner_best
from llmtutor.experiments.state_space import (
    ASKED,
    BLANK,
    FIRST,
    LETTERS,
    MARK,
    MIXERS,
    NO_CHOICE,
    TUNED,
    Unchosen,
    accuracy,
    copier,
    copying,
    copying_run,
    rates_of,
)
from llmtutor.experiments.study import load_record


@pytest.mark.parametrize("task", ["copying", "selective"])
def test_texts_hold_their_letters_and_ask_for_them_in_order(task) -> None:
    ids, letters = copying(task, 200, 9, torch.Generator().manual_seed(1))
    assert ids.shape == (200, 9 + ASKED) and bool((ids[:, 9:] == MARK).all())
    for text, asked in zip(ids.tolist(), letters.tolist(), strict=True):
        assert [i for i in text[:9] if i != BLANK] == asked
    assert set(letters.flatten().tolist()) == set(range(FIRST, FIRST + LETTERS))
    places = {tuple((row != BLANK).nonzero().flatten().tolist()) for row in ids[:, :9]}
    assert places == {(0, 1, 2, 3)} if task == "copying" else len(places) > 50


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="length must be at least 4, a place for each letter"):
        copying("copying", 1, 3, torch.Generator())
    with pytest.raises(ValueError, match="unknown task 'copy'; did you mean 'copying'"):
        copying("copy", 1, 8, torch.Generator())
    with pytest.raises(ValueError, match="unknown mixer 'mambo'; did you mean 'mamba'"):
        copier("mambo", 8)


def test_models_have_one_size_and_guess_before_they_have_learned() -> None:
    sizes = [sum(p.numel() for p in copier(mixer, 16).parameters()) for mixer in MIXERS]
    assert max(sizes) < 1.01 * min(sizes)
    torch.manual_seed(0)
    assert accuracy(copier("mamba", 16), "selective", 16) < 0.3


def test_a_rate_at_an_end_is_no_inner_best() -> None:
    assert inner_best({0.1: 3.0, 0.2: 1.0, 0.4: 2.0}) == 0.2
    with pytest.raises(ValueError, match=r"lowest loss is at 0.4, an end of the rates tried"):
        inner_best({0.1: 3.0, 0.2: 2.0, 0.4: 1.0})


def test_rates_of_the_record_are_those_that_were_searched() -> None:
    searched, plan = load_record("state-space-rates"), load_record("state-space").plan
    for mixer in TUNED:
        losses = {lr: searched.results(mixer=mixer, lr=lr)[0]["loss"] for lr in rates_of(mixer)}
        assert plan["rates"][mixer] == inner_best(losses)


def test_a_run_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtutor.experiments.state_space.STEPS", 5)
    settings = {"task": "selective", "mixer": "s4d", "length": 8, "lr": 0.01, "seed": 3}
    assert copying_run(**settings) == copying_run(**settings)


def test_without_a_choice_a_channel_is_a_convolution_with_a_fixed_kernel() -> None:
    """Its state space is linear in what comes in, and the same at every place; Mamba's is not."""
    torch.manual_seed(0)
    mixer = Unchosen(4, d_state=3).double()
    mixer.conv.weight.data[:, :, :-1] = 0.0  # SiLU acts on tokens one by one: the sum below holds

    def passed(u: torch.Tensor) -> torch.Tensor:
        return mixer._mixed(u, None, None, None)[0]

    at_first, later = torch.zeros(2, 1, 6, 8, dtype=torch.float64)
    at_first[:, 1], later[:, 3] = 1.0, 1.0
    torch.testing.assert_close(passed(at_first)[:, 1:4], passed(later)[:, 3:])
    torch.testing.assert_close(passed(at_first + later), passed(at_first) + passed(later))


def test_the_one_without_a_choice_keeps_all_else() -> None:
    torch.manual_seed(0)
    model, whole = copier(NO_CHOICE, 16).model, copier("mamba", 16).model
    ours, theirs = dict(model.named_parameters()), dict(whole.named_parameters())
    own = {name for name in ours if name.endswith((".enter", ".read"))}
    gone = {name for name in theirs if name.endswith((".select.weight", ".step.weight"))}
    assert ours.keys() - own == theirs.keys() - gone and len(own) == len(gone) == 4
    assert all(ours[name].shape == theirs[name].shape for name in ours.keys() - own)
