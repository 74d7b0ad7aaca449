"""What chapter 18 says in numbers that no output shows."""

import math
import statistics

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from llmtutor.data.batches import random_batches
from llmtutor.experiments.curve import train_curve
from llmtutor.experiments.expert_balance import STEPS, config_of
from llmtutor.experiments.study import load_record
from llmtutor.experiments.training import SEQ_LEN, WARMUP, tokens
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.moe import MoEConfig, RouterConfig
from llmtutor.layers.moe.capacity import capacity
from llmtutor.layers.part import Load, Site
from llmtutor.model.accounting import parameters
from llmtutor.model.presets import build, preset


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


def seeds_of(arm: str) -> list[dict]:
    record = load_record("moe-balance")
    return [record.results(arm=arm, lr=0.008, seed=seed)[0] for seed in range(3)]


def busiest_over(arm: str, steps: slice) -> list[float]:
    """The mean of the busiest load over recorded steps (every tenth), by seed and layer."""
    return [
        statistics.mean(max(load) for load in layer[steps])
        for run in seeds_of(arm)
        for layer in run["loads"]
    ]


def test_the_rush_comes_without_the_circle() -> None:
    found = {frozen: busiest_of(frozen) for frozen in (None, ".router.", ".experts.")}
    early = [by_seed[5] for runs in found.values() for by_seed in runs]
    assert min(early) > 5.5 and max(early) <= 8
    # After 79 steps the rounding of a processor has its part: in one seed it says who is ahead.
    trained, frozen = ([run[79] for run in found[name]] for name in (None, ".router."))
    assert 2.3 < min(trained) < max(frozen) < 4.6 and 2.3 < min(frozen) < max(trained) < 6.2


def busiest_of(frozen: str | None) -> list[list[float]]:
    """Layer 1's busiest load at each step of the chapter's run, for three seeds."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = build(config_of("none"))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(frozen is None or frozen not in name)
        generator = torch.Generator().manual_seed(seed)
        batches = random_batches(tokens()[0], 8, SEQ_LEN, generator=generator)
        curve = train_curve(model, batches, steps=80, lr=0.008, schedule=lambda step: 1.0)
        found.append([max(load) for load in curve.statistics["blocks.1.ffn.load"]])
    return found


def test_where_layer_1_goes_without_balance_and_with_it() -> None:
    """The loads of every tenth step; the study warms up for 12 steps."""
    course = {
        arm: [[max(load) for load in run["loads"][1]] for run in seeds_of(arm)]
        for arm in ("none", "loss 0.01", "bias 0.01", "bias 0.003")
    }
    assert int(WARMUP * STEPS) == 12
    assert min(by_step[1] for by_step in course["none"]) > 7.7  # of 8
    assert [round(by_step[-1], 1) for by_step in course["none"]] == [7.0, 3.3, 3.5]
    changes = [by_step[-1] - by_step[0] for by_step in course["none"]]
    assert min(changes) < 0 < max(changes)
    assert round(course["bias 0.01"][0][1], 1) == 8.0
    assert max(course["loss 0.01"][0]) == course["loss 0.01"][0][0] == pytest.approx(3.9, abs=0.05)
    idle = [min(load) == 0 for load in seeds_of("none")[0]["loads"][1]]
    assert (sum(idle), len(idle)) == (22, 25)


def test_transformers_at_perfect_balance() -> None:
    """Mixtral's loss with two choices of four experts, all equally often."""
    even = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert float(load_balancing_loss_func((even,), 4, top_k=2)) == pytest.approx(2)


def test_fetching_experts_or_sending_tokens() -> None:
    layer = 128 * 3 * 2048 * 768 * 2
    there = 8 * 2048 * 2
    assert round(layer / 1e9, 1) == 1.2 and round(there / 1e3) == 33
    assert 18_000 < layer / (2 * there) < 19_000


def test_bytes_of_mixtral_and_products_of_qwen() -> None:
    mixtral, qwen = (parameters(preset(name)) for name in ("mixtral-8x7b", "qwen3-30b-a3b"))
    assert round(2 * mixtral.total / 1e9) == 93
    assert round(2 * (mixtral.active - mixtral.embedding) / 1e9, 1) == 25.5
    assert round((qwen.active - qwen.embedding) / 1e9, 2) == 3.04


def test_how_fast_balance_comes() -> None:
    assert max(busiest_over("loss 0.01", slice(10, 15))) < 2
    assert max(busiest_over("bias 0.003", slice(8, 13))) > 3.5
    assert max(busiest_over("bias 0.003", slice(20, 25))) < 2
    before, end = (busiest_over("loss 0.001", s) for s in (slice(15, 20), slice(20, 25)))
    assert all(1.8 < x < 3.4 for x in end) and abs(sum(before) - sum(end)) / 6 < 0.2


def test_share_of_the_busiest() -> None:
    shares = [max(max(layer) for layer in run["held_out_loads"]) / 8 for run in seeds_of("none")]
    assert 0.464 < min(shares) < 0.475 and round(100 * max(shares)) == 78


def test_capacity_of_random_tokens() -> None:
    load = seeds_of("loss 0.01")[0]["held_out_loads"][1]
    assert round(100 * sum(max(0.0, x - 1.25) for x in load) / 8) == 1
    chance = [math.comb(64, k) * (1 / 8) ** k * (7 / 8) ** (64 - k) for k in range(65)]
    room = capacity(1.25, n_tokens=64, top_k=1, n_experts=8)
    lost = 8 / 64 * sum(max(0, k - room) * c for k, c in enumerate(chance))
    assert round(100 * lost, 1) == 4.5


def test_idle_time_memory_and_rounding() -> None:
    assert round(100 * (1 - (4 / 7) / 4)) == 86
    assert round(parameters(preset("qwen3-30b-a3b")).total * 16 / 1e10) == 49
    near = torch.tensor([100.0, 100.24, 100.26]).to(torch.bfloat16).tolist()
    assert near == [100.0, 100.0, 100.5] and round(math.exp(0.25), 1) == 1.3
