"""µP: one model at the base width, sizes at the start, steps that do not grow with the width."""

import pytest
import torch

from llmtutor.experiments import mup
from llmtutor.experiments.mup import BASE, WIDTHS, mup_run, parametrised
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


def moved(d_model: int, is_mup: bool) -> float:
    """How far one sign step of all hidden matrices moves the logits, root mean square."""
    torch.manual_seed(0)
    net, part = parametrised(d_model, 84, is_mup)
    ids = torch.randint(84, (8, 32), generator=torch.Generator().manual_seed(1))
    before = net(ids)
    torch.nn.functional.cross_entropy(before.flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
    with torch.no_grad():
        for weight in split(net)["hidden"]:
            weight -= 0.001 * part * weight.grad.sign()
        return float((net(ids) - before).square().mean().sqrt())


def test_a_step_moves_the_logits_as_far_at_every_width_in_mup_and_farther_without() -> None:
    """Yang et al. (2022), section 2: the coordinate check."""
    plain, scaled = ([moved(d, is_mup) for d in (32, 256)] for is_mup in (False, True))
    assert plain[1] > 3 * plain[0]
    assert 0.4 < scaled[1] / scaled[0] < 1.5


def test_the_record_holds_every_width_and_rate(whole) -> None:
    record = whole("mup")
    widths = {run["settings"]["d_model"] for run in record.runs}
    assert widths == set(WIDTHS)
    for d in WIDTHS:
        for is_mup in (False, True):
            losses: dict[float, list[float]] = {}
            for run in record.runs:
                if run["settings"]["d_model"] == d and run["settings"]["mup"] is is_mup:
                    loss = run["result"]["valid_loss"]
                    at = losses.setdefault(run["settings"]["lr"], [])
                    at.append(float("inf") if loss is None else loss)
            best = min(losses, key=lambda lr: sum(losses[lr]))
            assert min(losses) < best < max(losses)
