"""Three oracles: torch.nn.functional, properties (shift, sums), and cases done by hand."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmtutor.layers.basic import (
    HEAD,
    RESIDUAL,
    Embedding,
    Linear,
    check_ids,
    cross_entropy,
    has_tag,
    log_softmax,
    softmax,
    tag,
)

INF = math.inf
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def random_logits(*shape: int, seed: int = 0, scale: float = 5.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x.requires_grad_()


def value_and_gradient(function, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value, and gradient of a fixed random projection of it."""
    x = x.detach().clone().requires_grad_()
    y = function(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    (gradient,) = torch.autograd.grad((y * direction).sum(), x)
    return y.detach(), gradient


# --- softmax and log_softmax ---------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("scale", [1e-3, 5.0, 1e4])
@pytest.mark.parametrize(("ours", "theirs"), [(softmax, F.softmax), (log_softmax, F.log_softmax)])
def test_softmax_equals_torch(ours, theirs, scale, dim):
    x = random_logits(4, 5, 6, scale=scale)
    for got, want in zip(
        value_and_gradient(lambda x: ours(x, dim), x),
        value_and_gradient(lambda x: theirs(x, dim), x),
        strict=True,
    ):
        torch.testing.assert_close(got, want, **EXACT)


def test_softmax_by_hand():
    x = torch.tensor([0.0, math.log(3.0), -INF], dtype=torch.float64)
    torch.testing.assert_close(softmax(x), torch.tensor([0.25, 0.75, 0.0]).double(), **EXACT)
    want = torch.tensor([math.log(0.25), math.log(0.75), -INF], dtype=torch.float64)
    torch.testing.assert_close(log_softmax(x), want, **EXACT)


@given(
    st.lists(st.floats(-700, 700), min_size=1, max_size=8),
    st.floats(-1e6, 1e6),
)
@settings(max_examples=30, deadline=None)
def test_softmax_ignores_a_shift_and_sums_to_one(values, shift):
    x = torch.tensor(values, dtype=torch.float64)
    probs = softmax(x)
    assert probs.sum().item() == pytest.approx(1, abs=1e-12)
    # The shift itself rounds the logits, by at most half a unit in the last place of 1e6.
    torch.testing.assert_close(softmax(x + shift), probs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_softmax(x + shift), log_softmax(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_softmax(x).exp(), probs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_large_logits_stay_finite(dtype):
    top = torch.finfo(dtype).max / 4
    x = torch.tensor([top, top, -top], dtype=dtype)
    assert softmax(x).tolist() == [0.5, 0.5, 0.0]
    assert log_softmax(x)[:2].tolist() == pytest.approx([-math.log(2)] * 2, rel=1e-2)


def test_log_softmax_keeps_what_the_logarithm_of_softmax_loses():
    x = torch.tensor([0.0, -1000.0], dtype=torch.float64)
    assert softmax(x).log()[1] == -INF
    assert log_softmax(x)[1] == -1000.0


def test_some_logits_minus_infinity_equal_torch():
    x = random_logits(3, 5).detach()
    x[:, 1] = -INF
    x[1, 3] = -INF
    for ours, theirs in [(softmax, F.softmax), (log_softmax, F.log_softmax)]:
        torch.testing.assert_close(ours(x), theirs(x, -1), **EXACT)
    got = value_and_gradient(softmax, x)[1]
    assert got.isfinite().all()
    torch.testing.assert_close(got, value_and_gradient(lambda x: F.softmax(x, -1), x)[1], **EXACT)


def test_row_masked_completely_is_zero_with_zero_gradient():
    x = torch.tensor([[-INF, -INF], [0.0, 0.0]], dtype=torch.float64)
    probs, gradient = value_and_gradient(softmax, x)
    assert probs.tolist() == [[0.0, 0.0], [0.5, 0.5]]
    assert gradient[0].tolist() == [0.0, 0.0]
    assert gradient.isfinite().all()
    assert log_softmax(x)[0].tolist() == [-INF, -INF]
    assert cross_entropy(x, torch.tensor([0, 0]), "none").tolist() == [
        INF,
        pytest.approx(math.log(2)),
    ]


def test_gradcheck():
    x = random_logits(3, 4, scale=1.0)
    targets = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(softmax, (x,))
    assert torch.autograd.gradcheck(lambda x: log_softmax(x, 0), (x,))
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, targets), (x,))
    assert torch.autograd.gradgradcheck(lambda x: cross_entropy(x, targets), (x,))
    layer = Linear(4, 2, bias=True).double()
    assert torch.autograd.gradcheck(layer, (x,))


def test_integer_logits_are_refused():
    for function in (softmax, log_softmax):
        with pytest.raises(ValueError, match="floating point"):
            function(torch.tensor([1, 2]))


# --- cross-entropy -------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_equals_torch(reduction):
    x = random_logits(4, 6, 5)
    targets = torch.randint(5, (4, 6), generator=torch.Generator().manual_seed(3))
    ours = value_and_gradient(lambda x: cross_entropy(x, targets, reduction), x)
    theirs = value_and_gradient(lambda x: F.cross_entropy(x.mT, targets, reduction=reduction), x)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


def test_cross_entropy_by_hand():
    # p = (1/4, 3/4): the surprises are log 4 and log 4/3.
    x = torch.tensor([[0.0, math.log(3.0)]] * 2, dtype=torch.float64)
    losses = cross_entropy(x, torch.tensor([0, 1]), "none")
    assert losses.tolist() == pytest.approx([math.log(4), math.log(4 / 3)], abs=1e-12)
    # The gradient of the sum is probability minus one-hot.
    _, gradient = value_and_gradient(lambda x: cross_entropy(x, torch.tensor([0, 1]), "none"), x)
    direction = torch.randn(2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    want = direction[:, None] * torch.tensor([[-0.75, 0.75], [0.25, -0.25]], dtype=torch.float64)
    torch.testing.assert_close(gradient, want, **EXACT)


def test_impossible_target_costs_infinity():
    assert cross_entropy(torch.tensor([0.0, -INF]), torch.tensor(1)) == INF
    assert cross_entropy(torch.tensor([0.0, -INF]), torch.tensor(0)) == 0


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3).long(), "shape of logits without"),
        (torch.zeros(2, 3), torch.zeros(2, 1).long(), "shape of logits without"),
        (torch.tensor(0.0), torch.tensor(0), "shape of logits without"),
        (torch.zeros(2, 3), torch.zeros(2), "must be integers"),
        (torch.zeros(2, 3), torch.tensor([True, False]), "must be integers"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "got 3"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "got -1"),
        (torch.zeros(2, 3).long(), torch.tensor([0, 1]), "floating point"),
        (torch.zeros(0, 3), torch.zeros(0).long(), "no target to score"),
    ],
)
def test_cross_entropy_refuses(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(logits, targets)


def test_cross_entropy_refuses_a_bad_reduction():
    with pytest.raises(ValueError, match="unknown reduction 'average'"):
        cross_entropy(torch.zeros(1, 2), torch.tensor([0]), "average")


# --- layers --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_linear_equals_torch(bias):
    ours, theirs = Linear(3, 5, bias).double(), torch.nn.Linear(3, 5, bias).double()
    theirs.load_state_dict(ours.state_dict())  # same names, same shapes
    x = random_logits(2, 4, 3)
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)
    ours(x).square().sum().backward()
    theirs(x.detach()).square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, **EXACT)


def test_linear_by_hand():
    layer = Linear(2, 1, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 3.0]]))
        assert layer.bias is not None
        layer.bias.fill_(1.0)
    assert layer(torch.tensor([10.0, 100.0])).tolist() == [321.0]


def test_embedding_is_one_hot_times_weight():
    layer = Embedding(7, 3).double()
    ids = torch.tensor([[0, 6, 3], [3, 3, 1]])
    one_hot = F.one_hot(ids, 7).double()
    torch.testing.assert_close(layer(ids), one_hot @ layer.weight, **EXACT)
    torch.testing.assert_close(layer(ids), F.embedding(ids, layer.weight), **EXACT)
    torch.testing.assert_close(layer(ids.int()), layer(ids), **EXACT)
    layer(ids).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[:, 0].tolist() == [1, 1, 0, 3, 0, 0, 1]  # times each id occurs


def test_an_embedding_is_indexing_with_the_same_gradient():
    layer, ids = Embedding(5, 3).double(), torch.tensor([[4, 0], [4, 4]])
    torch.testing.assert_close(layer(ids), layer.weight[ids], rtol=0, atol=0)
    torch.testing.assert_close(layer(ids.to(torch.uint8)), layer.weight[ids], rtol=0, atol=0)
    slopes = [
        torch.autograd.grad((rows * random_logits(2, 2, 3, seed=2)).sum(), layer.weight)[0]
        for rows in (layer(ids), layer.weight[ids])
    ]
    torch.testing.assert_close(*slopes, **EXACT)


def test_a_tag_is_seen_and_changes_nothing_else():
    layer = Linear(2, 3)
    before = repr(layer), layer.state_dict().keys()
    assert not has_tag(layer, RESIDUAL)
    assert tag(layer, RESIDUAL) is layer
    assert has_tag(layer, RESIDUAL) and not has_tag(layer, HEAD)
    assert (repr(layer), layer.state_dict().keys()) == before
    assert has_tag(copy.deepcopy(layer), RESIDUAL) and not has_tag(Linear(2, 3), RESIDUAL)
    both = tag(torch.nn.Linear(2, 3), RESIDUAL, HEAD)
    assert has_tag(both, RESIDUAL) and has_tag(both, HEAD)


def test_initial_spread():
    torch.manual_seed(0)
    for weight, std in [
        (Linear(300, 500).weight, math.sqrt(2 / 800)),
        (Embedding(500, 300).weight, 1.0),
    ]:
        # Cutting a normal at 3 deviations leaves 0.98658 of its deviation:
        # sqrt(1 - 6 phi(3) / (2 Phi(3) - 1)), phi and Phi the normal density and distribution.
        density = math.exp(-4.5) / math.sqrt(2 * math.pi)
        cut = math.sqrt(1 - 6 * density / math.erf(3 / math.sqrt(2)))
        assert weight.std().item() == pytest.approx(std * cut, rel=0.01)
        assert abs(weight.mean().item()) < 0.01 * std
        assert 2.5 * std < weight.abs().max().item() <= 3 * std


@pytest.mark.parametrize(
    "ids",
    [torch.tensor([0.0]), torch.tensor([True]), torch.tensor([5]), torch.tensor([-1])],
    ids=["float", "bool", "too large", "negative"],
)
def test_embedding_refuses(ids):
    with pytest.raises(ValueError, match="ids must"):
        Embedding(5, 2)(ids)


def test_embedding_of_no_ids():
    assert Embedding(5, 2)(torch.zeros(3, 0).long()).shape == (3, 0, 2)


def test_bad_sizes_are_refused():
    for make in (lambda: Linear(0, 2), lambda: Linear(2, 0), lambda: Embedding(0, 2)):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            make()
    for shape in [(3,), (2, 3), ()]:
        with pytest.raises(ValueError, match="d_in = 2"):
            Linear(2, 2)(torch.zeros(shape))
    with pytest.raises(ValueError, match="another tokenizer"):
        check_ids(torch.tensor([9]), 9)


def test_shapes_in_the_signatures_hold():
    from beartype import beartype
    from jaxtyping import TypeCheckError, jaxtyped

    checked = jaxtyped(cross_entropy, typechecker=beartype)
    checked(torch.zeros(2, 3, 4), torch.zeros(2, 3).long())
    with pytest.raises(TypeCheckError):
        checked(torch.zeros(2, 3, 4), torch.zeros(2).long())
