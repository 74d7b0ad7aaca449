"""Curves that are ill: one defect each, the same beginnings, and what the record says of them."""

import numpy as np
import pytest
import torch

from llmtutor.experiments import sick_curves as study
from llmtutor.experiments.sick_curves import HEALTHY, ILLNESSES, Illness

IDS = np.random.default_rng(0).integers(0, 9, size=2000).astype(np.uint16)


def batches(monkeypatch: pytest.MonkeyPatch, illness: Illness, seed: int = 1) -> list:
    monkeypatch.setattr(study, "STEPS", 6)
    return list(study.windows(IDS, illness, seed))


def test_every_illness_differs_from_a_healthy_run_in_one_thing() -> None:
    healthy = vars(ILLNESSES[HEALTHY])
    for name, illness in ILLNESSES.items():
        different = [k for k, v in vars(illness).items() if k != "cause" and v != healthy[k]]
        assert len(different) == (name != HEALTHY), name
    warm, cold = study.WARM.values()
    assert (warm.warmup, cold.warmup) == (True, False)
    assert {**vars(warm), "cause": "", "warmup": 0} == {**vars(cold), "cause": "", "warmup": 0}


def test_windows_are_those_of_the_healthy_run_but_for_the_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = batches(monkeypatch, ILLNESSES[HEALTHY])
    again = batches(monkeypatch, ILLNESSES["rate"])
    leak = batches(monkeypatch, ILLNESSES["leak"])
    assert len(plain) == 6 and plain[0][0].shape == (study.BATCH, study.SEQ_LEN)
    for (x, y), (x2, y2), (x3, y3) in zip(plain, again, leak, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2) and torch.equal(x, x3)
        assert torch.equal(x[:, 1:], y[:, :-1]) and torch.equal(x3, y3)


def test_sorted_windows_are_the_same_ones_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.cat([x for x, _ in batches(monkeypatch, ILLNESSES[HEALTHY])])
    in_order = torch.cat([x for x, _ in batches(monkeypatch, ILLNESSES["order"])])
    means = in_order.double().mean(dim=1)
    assert (means.diff() <= 0).all() and means[0] > means[-1]
    assert sorted(map(tuple, plain.tolist())) == sorted(map(tuple, in_order.tolist()))


def test_little_text_is_the_first_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Illness(characters=40)
    x = torch.cat([x for x, _ in batches(monkeypatch, short)])
    rows = {tuple(IDS[i : i + study.SEQ_LEN].tolist()) for i in range(8)}
    assert set(map(tuple, x.tolist())) <= rows


def test_a_dead_model_has_no_gradient_and_the_others_begin_alike() -> None:
    x = torch.from_numpy(IDS[:64].astype(np.int64)).view(2, 32)
    dead = study.make_model(9, 0, dead=True)
    torch.nn.functional.cross_entropy(dead(x).mT, x).backward()
    assert all(p.grad is None or not p.grad.any() for p in dead.parameters())
    one, two = (study.make_model(9, 3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_loss_is_that_of_the_next_character_or_of_the_same_one() -> None:
    model = study.make_model(9, 0)
    inputs = torch.from_numpy(IDS[:33].astype(np.int64))[None]
    for shift, targets in ((1, inputs[:, 1:]), (0, inputs[:, :-1])):
        said = torch.nn.functional.cross_entropy(model(inputs[:, :-1]).mT, targets)
        assert study.loss_of(model, IDS[:33], shift) == pytest.approx(said.item(), abs=1e-5)


def test_a_run_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "STEPS", 4)
    monkeypatch.setattr(study, "EVERY", 2)
    monkeypatch.setattr(study, "VALID_WINDOWS", 3)
    monkeypatch.setattr(study, "tokens", lambda: (IDS, IDS[:500], 9))
    found = {name: study.ill_run(illness=name, seed=2) for name in ILLNESSES}
    assert found["pile"] == study.ill_run(illness="pile", seed=2)
    assert found["healthy"]["marks"]["step"] == [0, 2, 4]
    assert found["pile"]["first_loss"] == found["healthy"]["first_loss"]
    assert found["pile"]["grad_norm"][-1] > 1.5 * found["healthy"]["grad_norm"][-1]
    assert set(found["dead"]["grad_norm"]) == {0.0}
    trigram = study.ill_run(illness="trigram", seed=0)
    assert trigram["bits_per_byte"] == pytest.approx(trigram["valid_loss"] / np.log(2), abs=1e-4)


def test_an_unknown_illness_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'leak'"):
        study.train_ill("leek", 0)
