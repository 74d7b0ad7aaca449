"""Losses of routers against the library's, at their minimum, by hand."""

import math

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.models.switch_transformers import modeling_switch_transformers as switch

from llmtutor.layers.moe.balance import balance_loss, entropy, loads, z_loss


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_balance_of_a_layer_is_that_of_mixtral_divided_by_top_k(top_k: int) -> None:
    x = logits(200, 8)
    experts = x.topk(top_k).indices
    theirs = load_balancing_loss_func((x,), num_experts=8, top_k=top_k)
    ours = balance_loss(x.softmax(-1), experts)
    assert float(theirs) == pytest.approx(top_k * float(ours), rel=1e-5)


def test_mixtral_takes_all_layers_together() -> None:
    """One layer sends everything to expert 0, the other to expert 1: even for it, and not here."""
    layers = [torch.tensor([[50.0, 0.0]] * 4), torch.tensor([[0.0, 50.0]] * 4)]
    assert float(load_balancing_loss_func(tuple(layers), 2, top_k=1)) == pytest.approx(1)
    assert [float(balance_loss(x.softmax(-1), x.topk(1).indices)) for x in layers] == [2, 2]


def test_balance_of_each_text_is_that_of_switch() -> None:
    x = logits(4, 50, 8)
    theirs = switch.load_balancing_loss_func(x.softmax(-1), x.argmax(-1))
    ours = balance_loss(x.softmax(-1), x.topk(1).indices)
    assert float(theirs) == pytest.approx(float(ours), rel=1e-5)
    whole = balance_loss(x.softmax(-1).flatten(0, 1), x.topk(1).indices.flatten(0, 1))
    assert float(whole) < float(ours)  # texts may differ where the whole is even


def test_z_loss_is_that_of_switch_and_by_hand() -> None:
    x = logits(2, 30, 8)
    assert float(z_loss(x)) == pytest.approx(float(switch.router_z_loss_func(x)), rel=1e-6)
    assert float(z_loss(torch.tensor([[0.0, 0.0]]))) == pytest.approx(math.log(2) ** 2)


@pytest.mark.parametrize("top_k", [1, 2])
def test_balance_is_1_where_even_and_as_many_as_experts_where_one_has_all(top_k: int) -> None:
    even = torch.full((8, 4), 0.25)
    experts = torch.stack([(torch.arange(8) + k) % 4 for k in range(top_k)], dim=1)
    assert float(balance_loss(even, experts)) == pytest.approx(1)
    sure = torch.eye(4)[torch.zeros(8, dtype=torch.int64)]
    assert float(balance_loss(sure, torch.zeros(8, 1, dtype=torch.int64))) == pytest.approx(4)


def test_balance_by_hand() -> None:
    """Of 4 tokens 3 choose expert 0, whose mean probability is 0.7: 2 (0.75 · 0.7 + 0.25 · 0.3)."""
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]], requires_grad=True)
    loss = balance_loss(p, p.topk(1).indices)
    assert float(loss.detach()) == pytest.approx(1.2)
    loss.backward()
    assert p.grad.tolist() == 4 * [pytest.approx([2 * 0.75 / 4, 2 * 0.25 / 4])]


def test_loads_and_entropy_by_hand() -> None:
    experts = torch.tensor([[[0, 1], [0, 2]], [[2, 3], [2, 3]]])
    assert loads(experts, 4).tolist() == [[2, 1, 1, 0], [0, 0, 2, 2]]
    assert loads(experts.flatten(0, 1), 4).tolist() == [1, 0.5, 1.5, 1]
    even = torch.full((3, 4), 0.25)
    assert float(entropy(even)) == pytest.approx(math.log(4))
    assert float(entropy(torch.eye(4))) == 0
