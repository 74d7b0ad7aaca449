"""The causal depthwise convolution: against torch's own, in pieces, and its refusals."""

import pytest
import torch
from torch import nn

from llmtutor.layers.recurrent.conv import CausalConv
from llmtutor.optim import make_optimizer


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("width", "bias"), [(4, True), (1, False), (2, False)])
def test_it_is_torchs_depthwise_convolution_padded_on_the_left(width: int, bias: bool) -> None:
    ours = CausalConv(3, width, bias).double()
    theirs = nn.Conv1d(3, 3, width, groups=3, padding=width - 1, bias=bias).double()
    if bias:
        ours.bias.data.copy_(numbers(3))
    theirs.load_state_dict(ours.state_dict())
    x = numbers(2, 6, 3).requires_grad_()
    got, want = ours(x), theirs(x.mT)[..., :6].mT
    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)
    (gradient,), (expected,) = (
        torch.autograd.grad(y.square().sum(), x, retain_graph=True) for y in (got, want)
    )
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-13)


def test_what_stands_at_the_front_is_zero_and_the_last_tap_is_now() -> None:
    conv = CausalConv(1, width=3)
    conv.weight.data = torch.tensor([[[100.0, 10.0, 1.0]]])
    out = conv(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
    assert out.flatten().tolist() == [1, 12, 123, 234]


@torch.no_grad()
def test_in_pieces_behind_its_tail_it_is_the_same() -> None:
    conv, x = CausalConv(3, 4).double(), numbers(2, 9, 3)
    tail, pieces = None, []
    for piece in x.split([1, 2, 5, 1], dim=1):  # shorter and longer than the tail
        pieces.append(conv(piece, tail))
        tail = conv.next_tail(piece, tail)
        assert tail.shape == (2, 3, 3)
    assert torch.equal(torch.cat(pieces, dim=1), conv(x))
    assert torch.equal(tail, x[:, -3:])
    assert CausalConv(3, 1).double().next_tail(x).shape == (2, 0, 3)


def test_a_filter_is_no_matrix_to_the_optimizers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), CausalConv(3, 4))
    for name in ("muon", "adamw"):
        (rest,) = (g for g in make_optimizer(model, name, 1e-3).param_groups if g["name"] == "rest")
        assert rest["weight_decay"] == 0
        assert any(p is model[1].weight for p in rest["params"])


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        CausalConv(3, 0)
    with pytest.raises(ValueError, match="channels"):
        CausalConv(3, 2)(torch.zeros(1, 2, 4))
