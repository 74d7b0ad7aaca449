"""From flowing to stepping: scipy, a fine Euler integration, and theorem 1 of the Mamba paper."""

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F

from llmtutor.layers.recurrent.discretise import euler, over, step_sizes, times, zoh, zoh_pair

A = torch.complex(-torch.logspace(-3, 2, 6), torch.linspace(-40, 90, 6)).to(torch.complex128)
STEPS = torch.logspace(-4, 0.5, 6, dtype=torch.float64)


def test_zero_order_hold_is_scipys() -> None:
    for a, step in zip(A.tolist(), STEPS.tolist(), strict=True):
        matrices = (np.array([[x]]) for x in (a, 1 + 0j, 1.0, 0.0))
        want_a, want_b, *_ = scipy.signal.cont2discrete(tuple(matrices), step, "zoh")
        got = zoh(torch.tensor(a, dtype=A.dtype), torch.tensor(step, dtype=STEPS.dtype))
        assert abs(got[0] - want_a[0, 0]) < 1e-14
        assert abs(got[1] - want_b[0, 0]) < 1e-14 * max(1, abs(want_b[0, 0]))


def test_pairs_of_reals_are_complex_numbers() -> None:
    wants = zoh(A, STEPS)
    for got, want in zip(zoh_pair(A.real, A.imag, STEPS), wants, strict=True):
        torch.testing.assert_close(torch.complex(*got), want, rtol=1e-12, atol=1e-14)
    a, b = (A.real, A.imag), (STEPS, -A.imag)
    torch.testing.assert_close(torch.complex(*times(a, b)), A * torch.complex(*b))
    torch.testing.assert_close(torch.complex(*over(a, b)), A / torch.complex(*b))


def test_it_is_the_limit_of_many_small_steps() -> None:
    """h' = A h + x with x held: 200,000 small steps of Euler come to within their own size."""
    a, step, h, x, n = -1.5, 0.8, 2.0, 3.0, 200_000
    stays, enters = zoh(torch.tensor(a, dtype=torch.float64), torch.tensor(step))
    flowing = h
    for _ in range(n):
        flowing += step / n * (a * flowing + x)
    assert float(stays * h + enters * x) == pytest.approx(flowing, abs=1e-5)


def test_theorem_1_is_exact_with_zero_order_hold_and_not_with_eulers_rule() -> None:
    """N = 1, A = −1, B = 1, Δ = softplus(z): h_t = (1 − g) h_{t−1} + g x_t with g = σ(z)."""
    z = torch.linspace(-8, 3, 23, dtype=torch.float64)
    step, gate = F.softplus(z), torch.sigmoid(z)
    minus = torch.tensor(-1.0, dtype=torch.float64)
    stays, enters = zoh(minus, step)
    assert float((stays - (1 - gate)).abs().max()) <= 2.3e-16
    assert float((enters - gate).abs().max()) <= 2.3e-16
    stays, enters = euler(minus, step)
    assert float((stays - (1 - gate)).abs().max()) <= 2.3e-16
    assert float((enters - gate).abs().max()) > 2  # at z = 3 it lets 3.05 of the input in, not 0.95


def test_euler_is_the_first_term() -> None:
    small = torch.tensor(1e-4, dtype=torch.float64)
    for a in A[:3]:
        assert abs(euler(a, small)[1] - zoh(a, small)[1]) < 2 * abs(a) * small**2
        assert torch.equal(euler(a, small)[0], zoh(a, small)[0])


def test_steps_are_spread_over_two_powers_of_ten() -> None:
    torch.manual_seed(0)
    steps = step_sizes(10_000)
    low, high = torch.tensor([1e-3, 1e-1]).log()
    assert low <= steps.min() and steps.max() <= high
    assert steps.mean() == pytest.approx(float(low + high) / 2, abs=0.05)
    assert ((steps.exp() < 1e-2).float().mean() - 0.5).abs() < 0.02
