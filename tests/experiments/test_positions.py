"""Seven position schemes: the models, the puzzle, and what the records say of their searches."""

from operator import itemgetter

import pytest
import torch

from llmtutor.experiments import positions
from llmtutor.experiments.positions import (
    ASKED,
    LETTERS,
    LONG,
    RATES,
    SCALINGS,
    SCHEMES,
    extension_run,
    puzzles,
    scheme_config,
    text_run,
    while_learning,
)
from llmtutor.experiments.rates import losses_by_rate
from llmtutor.model.presets import build


def test_a_search_on_the_puzzle_reads_how_soon_it_is_learned() -> None:
    assert while_learning({"marks": {"250": 2.0, "500": 1.0, "1000": 0.0}, "valid_loss": 0}) == 1


def test_models_differ_in_the_scheme_alone() -> None:
    none = scheme_config("none", 84)
    for scheme in SCHEMES:
        config = scheme_config(scheme, 84)
        changes = {"position": scheme}
        if scheme == "sinusoidal":
            changes["embedding_scale"] = 48**0.5
        assert config == none.replace(**changes)
        assert build(config)(torch.zeros(1, LONG, dtype=torch.int64)).shape == (1, LONG, 84)
    with pytest.raises(ValueError, match="did you mean 'rope'"):
        scheme_config("roppe", 84)


def test_the_puzzle_asks_for_the_letters_again_and_backwards() -> None:
    ids, answers = puzzles(2, torch.Generator().manual_seed(0))
    letters = ids[:, :ASKED]
    assert ids[:, ASKED].tolist() == [LETTERS, LETTERS + 1] and ids.shape == (2, 2 * ASKED)
    assert answers[0].tolist() == letters[0].tolist()
    assert answers[1].tolist() == letters[1].tolist()[::-1]
    assert ids[:, ASKED + 1 :].tolist() == answers[:, :-1].tolist()


def test_a_run_reads_short_and_long_windows(monkeypatch) -> None:
    monkeypatch.setattr(positions, "STEPS", 4)
    monkeypatch.setattr(positions, "MORE_STEPS", 2)
    monkeypatch.setattr(positions, "WINDOWS", 8)
    run = text_run(scheme="alibi", lr=0.01, seed=0)
    assert len(run["short"]) == 64 // 8 and len(run["long"]) == 256 // 8
    assert run["valid_loss"] == pytest.approx(sum(run["short"]) / 8, abs=1e-4)
    found = extension_run(lr=0.01, seed=0)
    assert set(found) == {*SCALINGS, "long from the start"}
    before = [found[name]["before"]["long"] for name in SCALINGS]
    assert all(before[0] != other for other in before[1:])  # slower turns are other models
    assert found["no scaling"]["after"] != found["no scaling"]["before"]


@pytest.mark.parametrize(
    ("name", "loss"), [("positions", itemgetter("valid_loss")), ("places", while_learning)]
)
def test_every_scheme_was_tuned_on_other_seeds(name: str, loss, whole) -> None:
    rates, plan = whole(f"{name}-rates"), whole(name).plan["lr"]
    for scheme in SCHEMES:
        losses = losses_by_rate(rates, "scheme", scheme, loss)
        assert plan[scheme] == min(losses, key=losses.__getitem__)
        assert len(losses) >= len(RATES) and min(losses) < plan[scheme] < max(losses)
    tuning = {run["settings"]["seed"] for run in rates.runs}
    assert not tuning & {run["settings"]["seed"] for run in whole(name).runs}
