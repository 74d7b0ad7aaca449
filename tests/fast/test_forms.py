"""Other forms of formulas: the same values and gradients as the forms that the chapters derive."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.fast.forms import TableRope, compiled_cross_entropy, sigmoid_gelu
from llmtutor.layers.basic import cross_entropy
from llmtutor.layers.ffn import gelu_tanh
from llmtutor.layers.positions import LinearScaling, Llama3Scaling, Rope, YarnScaling


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def test_gelu_by_a_sigmoid_is_that_by_a_tanh() -> None:
    x = torch.linspace(-30, 30, 601, dtype=torch.float64, requires_grad=True)
    got, want = sigmoid_gelu(x), gelu_tanh(x)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (got, want)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
    one = math.sqrt(2 / math.pi) * 1.044715
    assert sigmoid_gelu(torch.tensor(1.0).double()).item() == pytest.approx(
        (1 + math.tanh(one)) / 2
    )


def test_cross_entropy_by_comparing_is_that_by_looking_up() -> None:
    logits, targets = draw(6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    got = compiled_cross_entropy(logits, targets)
    for want in (
        F.cross_entropy(logits, targets, reduction="sum"),
        cross_entropy(logits, targets, "sum"),
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
        slopes = [torch.autograd.grad(y, logits, retain_graph=True)[0] for y in (got, want)]
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
    by_hand = compiled_cross_entropy(torch.tensor([[0.0, math.log(3.0)]] * 2), torch.tensor([0, 1]))
    assert by_hand.item() == pytest.approx(math.log(4) + math.log(4 / 3))
    assert compiled_cross_entropy(torch.full((1, 3), 1e4), torch.tensor([1])).item() == (
        pytest.approx(math.log(3), rel=1e-2)
    )


@pytest.mark.parametrize("target", [-1, 5, -100, 2**32 + 3])
def test_a_target_that_is_no_token_is_not_passed_over(target) -> None:
    """2³² + 3 is 3 in 32 bits."""
    loss = compiled_cross_entropy(draw(2, 5), torch.tensor([1, target]))
    assert loss.isnan()


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize(
    "scaling", [None, LinearScaling(2), YarnScaling(4, 16), Llama3Scaling(4, 16)], ids=str
)
def test_rotations_from_a_table_are_those_computed(pairing, fraction, scaling) -> None:
    """To the bit of the dtype of the rotation, which is float32 at least, up to the last row."""
    rope = Rope(8, base=100.0, pairing=pairing, fraction=fraction, scaling=scaling)
    positions = torch.tensor([3, 4, 0, 31])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        table = TableRope(rope, 32, dtype)
        q, k = (draw(2, n, 4, 8, seed=n).detach().to(dtype).requires_grad_() for n in (4, 2))
        got, want = table.rotate_both(q, k, positions), rope.rotate_both(q, k, positions)
        for ours, theirs in zip(got, want, strict=True):
            assert ours.dtype == dtype
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        slopes = [torch.autograd.grad(y[0].square().sum(), q)[0] for y in (got, want)]
        torch.testing.assert_close(*slopes)
    exact = TableRope(rope, 32, torch.float64).rotate(draw(4, 8), positions)
    torch.testing.assert_close(exact, rope.rotate(draw(4, 8), positions), rtol=1e-14, atol=1e-14)
    assert not list(table.parameters()) and not list(table.buffers())


def test_a_table_refuses_what_the_rotation_refuses() -> None:
    table, x = TableRope(Rope(8), 32, torch.float32), torch.zeros(2, 5, 8)
    for wrong, positions, message in [
        (x[..., :6], torch.arange(5), "head_dim = 8"),
        (x, torch.arange(4), r"positions must have shape \(5,\)"),
        (x, torch.arange(5.0), "positions must be integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            table.rotate(wrong, positions)
    with pytest.raises(IndexError):
        table.rotate(x, torch.arange(28, 33))
