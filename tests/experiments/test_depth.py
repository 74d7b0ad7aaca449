"""Norms in five places: the stacks, a run in small, and the searches behind the record."""

import pytest
import torch
from torch import nn

from llmtutor.experiments import depth
from llmtutor.experiments.depth import DEPTHS, PLACEMENTS, depth_run, search_run, stack


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_stacks_have_their_norms_where_they_say(placement: str) -> None:
    torch.manual_seed(0)
    model = stack(placement, 3, 84)
    norms = [m for m in model.modules() if isinstance(m, nn.Module) and "Norm" in type(m).__name__]
    assert len(norms) == {"none": 0, "post": 6, "sandwich": 13}.get(placement, 7)
    other = stack("pre", 3, 84)
    matrices = [sum(p.numel() for p in m.parameters() if p.ndim > 1) for m in (model, other)]
    assert matrices[0] == matrices[1]
    with pytest.raises(ValueError, match="did you mean 'sandwich'"):
        stack("sandwhich", 2, 84)


def test_a_run_that_overflows_is_no_number_and_a_search_goes_past_it(monkeypatch) -> None:
    monkeypatch.setattr(depth, "STEPS", 3)
    monkeypatch.setattr(depth, "WINDOWS", 8)
    assert depth_run(placement="none", n_layers=2, lr=1e12, seed=0)["valid_loss"] is None
    monkeypatch.setattr(depth, "START", 1.0)
    found = search_run(placement="pre", n_layers=2, seed=0)
    assert str(found["lr"]) in found["losses"] and found["lr"] < 1


def test_every_stack_was_tuned(whole) -> None:
    rates, plan = whole("depth-rates"), whole("depth").plan["lr"]
    for placement in PLACEMENTS:
        for n in DEPTHS:
            (found,) = rates.results(placement=placement, n_layers=n)
            tried = {float(lr): loss for lr, loss in found["losses"].items() if loss is not None}
            assert plan[placement][str(n)] == found["lr"] == min(tried, key=tried.__getitem__)
            all_rates = [float(lr) for lr in found["losses"]]
            assert min(all_rates) < found["lr"] < max(all_rates)
