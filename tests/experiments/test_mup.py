"""µP: one model at the base width, sizes at the start, steps that do not grow with the width."""

import pytest
import torch

from llmtutor.experiments import mup
from llmtutor.experiments.mup import BASE, WIDTHS, by_rate, moved, mup_run, parametrised
from llmtutor.experiments.study import Record
from llmtutor.optim.groups import split


@pytest.mark.parametrize("d_model", [32, 128])
def test_weights_start_with_the_deviations_of_the_table(d_model: int) -> None:
    torch.manual_seed(0)
    net, part = parametrised(d_model, 84, mup=True)
    groups = split(net)
    assert part == BASE / d_model
    for weight in groups["hidden"]:
        assert weight.std().item() == pytest.approx(weight.shape[-1] ** -0.5, rel=0.1)
    assert groups["head"][0].std().item() == pytest.approx(BASE**-0.5, rel=0.05)
    torch.manual_seed(0)
    plain, whole = parametrised(d_model, 84, mup=False)
    assert whole == 1.0
    assert split(plain)["head"][0].std().item() == pytest.approx(d_model**-0.5, rel=0.05)


def test_at_the_base_width_both_are_one_model(monkeypatch) -> None:
    monkeypatch.setattr(mup, "STEPS", 5)
    monkeypatch.setattr(mup, "WINDOWS", 8)
    runs = [mup_run(d_model=BASE, mup=m, lr=0.01, seed=0)["valid_loss"] for m in (False, True)]
    assert runs[0] == runs[1]


def test_a_step_moves_the_stream_as_far_at_every_width_in_mup_and_farther_without() -> None:
    """Yang et al. (2022), section 2: the coordinate check."""
    plain, scaled = ([moved(d, 84, is_mup) for d in (32, 256)] for is_mup in (False, True))
    assert plain[0] == scaled[0] and 5 < plain[1] / plain[0] < 10
    assert 0.7 < scaled[1] / scaled[0] < 1.2


def test_the_record_holds_every_width_and_rate(whole) -> None:
    record = whole("mup")
    widths = {run["settings"]["d_model"] for run in record.runs}
    assert widths == set(WIDTHS)
    for losses in (*by_rate(record, False).values(), *by_rate(record, True).values()):
        assert min(losses) < min(losses, key=losses.__getitem__) < max(losses)


def test_losses_by_rate_are_means_and_infinite_where_a_run_diverged() -> None:
    runs = [
        {
            "settings": {"d_model": 32, "mup": mup, "lr": lr, "seed": seed},
            "result": {"valid_loss": x},
        }
        for mup, lr, seed, x in (
            (True, 0.2, 0, 2.0),
            (True, 0.1, 0, 3.0),
            (True, 0.1, 1, 4.0),
            (True, 0.2, 1, None),
            (False, 0.1, 0, 9.0),
        )
    ]
    found = by_rate(Record("mup", "", {}, "", [], runs), mup=True)
    assert found == {32: {0.1: 3.5, 0.2: float("inf")}} and [*found[32]] == [0.1, 0.2]
