"""Six feed-forward layers: equal sizes, pairs, windows, rates of the record, a run made again."""

import math

import pytest
import torch

from llmtutor.experiments import feed_forward as study
from llmtutor.experiments.staircase import best_rate
from llmtutor.experiments.study import load_record


def test_all_layers_have_one_size_and_models_of_a_seed_one_beginning() -> None:
    models = {}
    for form, make in study.FORMS.items():
        torch.manual_seed(3)
        models[form] = study.WindowModel(84, make)
    sizes = {sum(p.numel() for p in model.layer.parameters()) for model in models.values()}
    assert sizes == {2 * 48 * 192}
    first = models["ReLU"]
    for model in models.values():
        assert torch.equal(model.embed.weight, first.embed.weight)
        assert torch.equal(model.head.weight, first.head.weight)


def test_windows_are_characters_in_a_row_and_each_once() -> None:
    ids = torch.arange(100, 112)
    inputs, targets = (torch.cat(some) for some in zip(*study.all_windows(ids), strict=True))
    assert inputs.tolist() == [list(range(100 + i, 104 + i)) for i in range(8)]
    assert targets.flatten().tolist() == list(range(104, 112))
    one, two = (next(study.random_windows(ids, seed=5)) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1][:, 0], one[0][:, -1] + 1)


def test_what_is_tuned_on_is_not_compared_on() -> None:
    train, tuning, held_out, vocab_size = study.parts()
    assert abs(len(tuning) - len(held_out)) <= 1 and len(train) > 5 * len(held_out)
    assert max(int(ids.max()) for ids in (train, tuning, held_out)) < vocab_size


def test_an_unknown_form_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'SwiGLU'"):
        study.train_form("SwiGlu", 0.01, 0, 1)


def test_a_run_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "STEPS", 5)
    text = torch.arange(400) % 7
    monkeypatch.setattr(study, "parts", lambda: (text, text[:100], text[100:200], 7))
    settings = {"form": "GEGLU", "lr": 0.01, "seed": 3}
    first = study.form_run(**settings, times=2)
    assert first == study.form_run(**settings, times=2) and first["curve"]["step"][-1] == 10
    assert study.tune_run(**settings) == study.tune_run(**settings)


def test_a_text_that_repeats_itself_costs_a_trigram_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = torch.arange(4000) % 7
    monkeypatch.setattr(study, "parts", lambda: (text, text[:100], text[100:300], 7))
    found = study.form_run(form="trigram", lr=None, seed=0)
    assert 0 < found["valid_loss"] < 0.02
    assert found["bits_per_byte"] == pytest.approx(found["valid_loss"] / math.log(2), abs=1e-4)


def test_rates_of_the_record_are_those_that_were_searched() -> None:
    searched, plan = load_record(study.RATES_STUDY), load_record(study.STUDY).plan
    for form in study.FORMS:
        assert plan["learning_rate"][form] == best_rate(study.tried(searched, form))
