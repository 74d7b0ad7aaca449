"""Norms against torch, by hand, their invariances, and why they stay within one position."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from llmtutor.layers.norms import (
    LayerNorm,
    LayerNormConfig,
    RMSNorm,
    RMSNormConfig,
    layer_norm,
    rms_norm,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}
D_MODEL = 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


OURS = {
    "layer_norm": lambda x, w, b, eps: layer_norm(x, w, b, eps),
    "layer_norm without bias": lambda x, w, b, eps: layer_norm(x, w, None, eps) + 0 * b,
    "rms_norm": lambda x, w, b, eps: rms_norm(x, w, eps) + 0 * b,
}
THEIRS = {
    "layer_norm": lambda x, w, b, eps: F.layer_norm(x, w.shape, w, b, eps),
    "layer_norm without bias": lambda x, w, b, eps: F.layer_norm(x, w.shape, w, None, eps) + 0 * b,
    "rms_norm": lambda x, w, b, eps: F.rms_norm(x, w.shape, w, eps) + 0 * b,
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("eps", [1e-5, 1e-12, 0.5])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_formula_equals_torch(name, eps, size) -> None:
    inputs = size * draw(2, 5, D_MODEL), draw(D_MODEL, seed=1), draw(D_MODEL, seed=2)
    got, want = OURS[name](*inputs, eps), THEIRS[name](*inputs, eps)
    torch.testing.assert_close(got, want, **EXACT)
    direction = draw(2, 5, D_MODEL, seed=3).detach()
    torch.testing.assert_close(
        torch.autograd.grad((got * direction).sum(), inputs),
        torch.autograd.grad((want * direction).sum(), inputs),
        rtol=1e-10,
        atol=1e-10,
    )


def modules(eps: float = 1e-5) -> list[tuple[nn.Module, nn.Module]]:
    return [
        (LayerNorm(D_MODEL, eps), nn.LayerNorm(D_MODEL, eps)),
        (LayerNorm(D_MODEL, eps, bias=False), nn.LayerNorm(D_MODEL, eps, bias=False)),
        (RMSNorm(D_MODEL, eps), nn.RMSNorm(D_MODEL, eps)),
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_modules_equal_torch_with_its_state(which, dtype) -> None:
    ours, theirs = modules(1e-3)[which]
    x = draw(2, 5, D_MODEL).detach().to(dtype)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    torch.testing.assert_close(ours(x), theirs(x))  # as they start
    for parameter in theirs.parameters():
        parameter.data = draw(D_MODEL, seed=7).detach().to(dtype)
    ours.load_state_dict(theirs.state_dict())
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(ours(x), theirs(x), rtol=tolerance, atol=tolerance)
    assert ours(x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gain_of_1_plus_weight_equals_gemma(dtype) -> None:
    """Values, gradients and what is saved; weights of 0 are gains of 1."""
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

    ours, theirs = (
        norm.to(dtype) for norm in (RMSNorm(64, 1e-3, offset=True), Gemma2RMSNorm(64, 1e-3))
    )
    x = draw(20, 64).detach().to(dtype).requires_grad_()
    assert torch.equal(ours.weight, theirs.weight)
    torch.testing.assert_close(ours(x), RMSNorm(64, 1e-3).to(dtype)(x))
    theirs.weight.data = 0.1 * draw(64, seed=7).detach().to(dtype)
    ours.load_state_dict(theirs.state_dict())
    got, want = ours(x), theirs(x)
    if dtype == torch.bfloat16:  # rounded once, at the end, but for what lies between two numbers
        assert (got != want).float().mean() < 0.01
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(got, want, rtol=8 * eps, atol=8 * eps)
    slopes = [
        torch.autograd.grad(y.float().sum(), (x, n.weight))
        for y, n in ((got, ours), (want, theirs))
    ]
    torch.testing.assert_close(*slopes, rtol=8 * eps, atol=64 * eps)


def test_gain_of_1_plus_weight_by_hand() -> None:
    norm = RMSNorm(2, 1e-30, offset=True).double()
    norm.weight.data = torch.tensor([1.0, -1.0]).double()
    got = norm(torch.tensor([1.0, 7.0]).double())  # mean square 25
    assert got.tolist() == pytest.approx([0.4, 0.0], abs=1e-12)


def test_module_runs_its_formula() -> None:
    x = draw(2, 5, D_MODEL)
    norm = LayerNorm(D_MODEL, 0.1).double()
    norm.weight.data, norm.bias.data = draw(D_MODEL, seed=1).data, draw(D_MODEL, seed=2).data
    torch.testing.assert_close(norm(x), layer_norm(x, norm.weight, norm.bias, 0.1), **EXACT)
    rms = RMSNorm(D_MODEL, 0.1).double()
    rms.weight.data = norm.weight.data
    torch.testing.assert_close(rms(x), rms_norm(x, norm.weight, 0.1), **EXACT)


def test_by_hand() -> None:
    x = torch.tensor([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, -2.0, -2.0]], dtype=torch.float64)
    gain = torch.tensor([1.0, 2.0, 1.0, 1.0]).double()
    # Row 1: mean 4, variance (9 + 1 + 1 + 9)/4 = 5, mean square (1 + 9 + 25 + 49)/4 = 21.
    want = torch.tensor([[-3, -2, 1, 3], [1, 2, -1, -1]]).double()
    want[0] /= math.sqrt(5)
    torch.testing.assert_close(layer_norm(x, gain, eps=0.0), want, **EXACT)
    want = torch.tensor([[1, 6, 5, 7], [1, 2, -1, -1]]).double()
    want[0] /= math.sqrt(21)
    torch.testing.assert_close(rms_norm(x, gain, 0.0), want, **EXACT)
    # eps is inside the root: mean square 4 and eps 5 make 3.
    torch.testing.assert_close(rms_norm(x[1:], gain, 5.0), want[1:] * 2 / 3, **EXACT)


# --- invariances -------------------------------------------------------------------------------

seeds = st.integers(0, 10_000)
factors = st.floats(1e-3, 1e3)


@given(seeds, factors, st.sampled_from([-1, 1]), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_rms_norm_ignores_the_scale_and_keeps_the_sign(seed, factor, sign, width) -> None:
    x, gain = draw(3, width, seed=seed), draw(width, seed=seed + 1)
    assume(float(x.square().mean(-1).min().detach()) > 1e-6)
    tiny = 1e-30  # eps breaks the invariance on purpose near 0; here it is out of the way
    got = rms_norm(sign * factor * x, gain, tiny)
    torch.testing.assert_close(got, sign * rms_norm(x, gain, tiny), **EXACT)
    # What comes out, before the gain, has mean square 1.
    ones = torch.ones(width).double()
    mean_square = rms_norm(x, ones, tiny).square().mean(-1)
    torch.testing.assert_close(mean_square, torch.ones(3).double(), **EXACT)


@given(seeds, factors, st.floats(-100, 100), st.integers(3, 9))
@settings(deadline=None, max_examples=30)
def test_layer_norm_ignores_scale_and_shift(seed, factor, shift, width) -> None:
    x, ones = draw(3, width, seed=seed), torch.ones(width).double()
    assume(float(x.var(-1).min().detach()) > 1e-2)
    want = layer_norm(x, ones, eps=1e-30)
    got = layer_norm(factor * (x + shift), ones, eps=1e-30)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.mean(-1), torch.zeros(3).double(), rtol=0, atol=1e-9)


def test_layer_norm_is_rms_norm_of_the_centred_vector() -> None:
    x, gain = draw(3, D_MODEL), draw(D_MODEL, seed=1)
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(layer_norm(x, gain), rms_norm(centred, gain), **EXACT)
    assert (rms_norm(x, gain) - layer_norm(x, gain)).abs().max() > 0.1


@pytest.mark.parametrize("make", [LayerNorm, RMSNorm])
def test_zero_vector_stays_finite(make) -> None:
    x = torch.zeros(2, D_MODEL, requires_grad=True)
    y = make(D_MODEL)(x)
    y.sum().backward()
    assert y.eq(0).all()
    assert x.grad is not None and x.grad.isfinite().all()


def test_half_precision_squares_do_not_overflow() -> None:
    x = torch.tensor([1e4, -1e4, 1e4, 1e4], dtype=torch.float16)  # 1e8 is beyond float16
    assert RMSNorm(4).half()(x).tolist() == [1, -1, 1, 1]


# --- why the last dimension only -----------------------------------------------------------------


class NormOverTheSequence(nn.Module):
    """The mistake: one statistic for (seq, d_model), as ``nn.LayerNorm((seq, d_model))`` takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + 1e-5)


@torch.no_grad()
def change_of_the_past(norm: nn.Module) -> float:
    """Largest change of outputs 0 … 4 when the inputs 5 … 7 become another text."""
    x = draw(2, 8, D_MODEL).detach()
    before = norm(x)
    x[:, 5:] = 3 * draw(2, 3, D_MODEL, seed=5).detach()
    return float((norm(x) - before)[:, :5].abs().max())


@pytest.mark.parametrize("make", [LayerNorm, RMSNorm])
def test_the_future_does_not_change_the_past(make) -> None:
    """A statistic over the sequence would divide each position by what comes after it.

    In a language model that is a leak: the loss falls, because the size of a vector tells
    something about the tokens to be predicted, and when text is generated the future that
    the norm was trained with does not exist.
    """
    assert change_of_the_past(make(D_MODEL).double()) == 0
    assert change_of_the_past(NormOverTheSequence()) > 0.1
    assert change_of_the_past(nn.LayerNorm((8, D_MODEL)).double()) > 0.1


@pytest.mark.parametrize("make", [LayerNorm, RMSNorm])
def test_each_position_is_normalised_by_itself_at_any_length(make) -> None:
    norm = make(D_MODEL).double()
    x = draw(2, 8, D_MODEL)
    one_by_one = torch.stack([norm(x[b, t]) for b in range(2) for t in range(8)])
    torch.testing.assert_close(norm(x).flatten(0, 1), one_by_one, **EXACT)
    assert all(p.shape == (D_MODEL,) for p in norm.parameters())  # no row for each position


# --- gradients and bad input ---------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_gradcheck_of_the_formulas(name) -> None:
    inputs = draw(2, 3, 4), draw(4, seed=1), draw(4, seed=2)
    assert torch.autograd.gradcheck(lambda *xs: OURS[name](*xs, 1e-5), inputs)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradcheck_of_the_modules(which) -> None:
    norm = modules()[which][0].double()
    x = draw(2, 3, D_MODEL)
    names, values = zip(*norm.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(norm, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values))


@pytest.mark.parametrize("make", [LayerNorm, RMSNorm])
def test_refuses(make) -> None:
    with pytest.raises(ValueError, match="d_model must be at least 1, got 0"):
        make(0)
    for eps in (0.0, -1e-5, math.nan):
        with pytest.raises(ValueError, match=r"eps must be (above 0|a finite number), got"):
            make(4, eps)
    for shape in [(3,), (4, 3), ()]:
        with pytest.raises(ValueError, match="d_model = 4"):
            make(4)(torch.zeros(shape))


def test_the_configuration_builds_the_norm_it_names() -> None:
    for config, want in [
        (LayerNormConfig(), LayerNorm(4)),
        (LayerNormConfig(eps=0.1, bias=False), LayerNorm(4, 0.1, bias=False)),
        (RMSNormConfig(), RMSNorm(4)),
        (RMSNormConfig(eps=0.1, offset=True), RMSNorm(4, 0.1, offset=True)),
    ]:
        assert repr(config.build(4)) == repr(want)
    for config in (LayerNormConfig, RMSNormConfig):
        with pytest.raises(ValueError, match="eps must be above 0, got 0"):
            config(eps=0.0)


def test_print() -> None:
    assert repr(RMSNorm(4)) == "RMSNorm(d_model=4, eps=1e-05, offset=False)"
    assert repr(RMSNorm(4, offset=True)) == "RMSNorm(d_model=4, eps=1e-05, offset=True)"
    assert repr(LayerNorm(4, bias=False)) == "LayerNorm(d_model=4, eps=1e-05, bias=False)"
