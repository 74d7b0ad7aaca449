"""Room for so many tokens: against Switch, by hand, and what is refused."""

import pytest
import torch
from transformers import SwitchTransformersConfig
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersSparseMLP,
)

from llmtutor.evaluate.causality import assert_causal
from llmtutor.layers.ffn import MLPConfig
from llmtutor.layers.moe import MoEConfig, RouterConfig
from llmtutor.layers.moe.capacity import capacity, limited
from llmtutor.layers.moe.router import Routing
from llmtutor.layers.part import Site
from llmtutor.model.presets import build, preset

SITE = Site(d_model=6, max_seq_len=40)
SWITCH = RouterConfig(top_k=1, normalise=False)


def routing(experts: list, n_experts: int) -> Routing:
    chosen = torch.tensor(experts)
    weights = torch.arange(1.0, chosen.numel() + 1).view_as(chosen)
    scores = torch.zeros(*chosen.shape[:-1], n_experts)
    return Routing(chosen, weights, scores, scores)


def test_exactly_those_who_come_too_late_are_dropped() -> None:
    first = [[0], [0], [1], [0], [1], [0]]
    second = [[1], [1], [1], [0], [0], [1]]  # each text has its own places
    kept = limited(routing([first, second], 2), room=2)
    assert kept.experts.squeeze(-1).tolist() == [[0, 0, 1, 2, 1, 2], [1, 1, 2, 0, 0, 2]]
    assert kept.weights.squeeze(-1).tolist() == [[1, 2, 3, 0, 5, 0], [7, 8, 0, 10, 11, 0]]


def test_a_second_choice_of_an_earlier_token_comes_before_a_first_of_a_later_one() -> None:
    kept = limited(routing([[0, 1], [1, 0], [1, 0]], 2), room=2)
    assert kept.experts.tolist() == [[0, 1], [1, 0], [2, 2]]


def test_room_by_hand() -> None:
    assert capacity(1.0, 64, 1, 8) == 8
    assert capacity(1.25, 64, 2, 8) == 20
    assert capacity(1.0, 9, 1, 8) == 1
    with pytest.raises(
        ValueError, match=r"capacity_factor = 0.5 leaves no room .* 0.5 · 8 tokens · 1 / 8 experts"
    ):
        capacity(0.5, 8, 1, 8)
    for wrong in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="capacity_factor must be"):
            capacity(wrong, 8, 1, 8)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_layer_equals_switch(factor: float) -> None:
    """Values and gradients; the library's capacity is a number of tokens for each text."""
    room = capacity(factor, 40, 1, 4)
    config = SwitchTransformersConfig(
        hidden_size=6, d_model=6, d_ff=10, num_experts=4, expert_capacity=room,
        router_jitter_noise=0.0, dropout_rate=0.0, router_bias=False,
    )  # fmt: skip
    theirs = SwitchTransformersSparseMLP(config).train()
    ours = MoEConfig(MLPConfig(10, "relu"), 4, SWITCH, capacity_factor=factor).build(SITE).train()
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    ours.router.linear.weight.data = theirs.router.classifier.weight.data
    for i, expert in enumerate(ours.experts):
        expert.up.weight.data = theirs.experts[f"expert_{i}"].wi.weight.data
        expert.down.weight.data = theirs.experts[f"expert_{i}"].wo.weight.data
    x = torch.randn(3, 40, 6, generator=generator, requires_grad=True)
    want, (got, extras) = theirs(x), ours(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    dropped = (want.abs().sum(-1) == 0).float().mean()
    assert float(extras.statistics["dropped"]) == pytest.approx(float(dropped), abs=1e-6)
    assert (dropped > 0.05) == (factor < 1.5) or dropped > 0
    direction = torch.randn(want.shape, generator=generator)
    (mine,) = torch.autograd.grad((got * direction).sum(), x)
    (wanted,) = torch.autograd.grad((want * direction).sum(), x)
    torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_a_dropped_token_goes_on_unchanged_and_evaluation_drops_nobody() -> None:
    layer = MoEConfig(MLPConfig(10), 4, SWITCH, capacity_factor=0.5).build(SITE)
    x = torch.randn(1, 16, 6, generator=torch.Generator().manual_seed(0))
    y, extras = layer(x)
    silent = y.abs().sum(-1) == 0
    assert 0 < float(silent.float().mean()) == pytest.approx(float(extras.statistics["dropped"]))
    y, extras = layer.eval()(x)
    assert float(extras.statistics["dropped"]) == 0 and not (y.abs().sum(-1) == 0).any()


def test_capacity_looks_at_no_later_token() -> None:
    options = {"n_experts": 4, "top_k": 2, "capacity_factor": 0.6}
    sizes = {"vocab_size": 11, "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 16}
    model = build(preset("llama-nano", **sizes, ffn="moe", **options))
    assert_causal(model, vocab_size=11, seq_len=12)
