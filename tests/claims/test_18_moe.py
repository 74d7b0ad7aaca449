"""What chapter 18 says in numbers that no output shows."""

import math

import pytest
import torch

from llmtutor.experiments.study import load_record
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.moe import MoEConfig, RouterConfig
from llmtutor.layers.part import Load, Site


def test_the_router_costs_four_per_cent() -> None:
    site, load, one = Site(64, 64), Load(1, 1), GatedMLPConfig(64)
    config = MoEConfig(one, 8, RouterConfig(1, normalise=False))
    ratio = config.costs(site, load).flops / one.costs(site, load).flops
    assert round(100 * (ratio - 1)) == 4


def test_weights_of_love() -> None:
    assert round(math.exp(2) / (math.exp(2) + math.exp(1.5)), 2) == 0.62


def test_a_loss_below_one() -> None:
    p = torch.tensor([[0.02, 0.98], [0.51, 0.49], [0.51, 0.49]], dtype=torch.float64)
    share = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)
    assert round(2 * float((share * p.mean(0)).sum()), 2) == 0.90


@pytest.mark.parametrize("arm", ["loss 0.01", "none"])
def test_busiest_experts(arm) -> None:
    record = load_record("moe-balance")
    runs = [record.results(arm=arm, lr=0.008, seed=seed)[0] for seed in range(3)]
    busiest = [max(max(layer) for layer in run["held_out_loads"]) for run in runs]
    assert max(busiest) <= 1.5 if arm != "none" else min(busiest) > 3


def test_sets_of_experts() -> None:
    assert math.comb(8, 2) == 28 and math.comb(128, 8) > 1e12
