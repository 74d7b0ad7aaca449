"""Laws: exact where the law is known, no worse than another optimiser, honest intervals."""

import math

import numpy as np
import pytest
import torch

from llmtutor.experiments.scaling import (
    Law,
    Prediction,
    best_learning_rate,
    bootstrap,
    compute_optimal,
    fit_law,
    lowest,
    power_law,
    predict,
)

SIZES = np.array([[n, d] for n in (6e3, 2e4, 6e4, 2e5) for d in (2e5, 4e5, 8e5)])
TRUE = Law(1.2, (20.0, 30.0), (0.4, 0.3))


def losses_of(law: Law, x: np.ndarray = SIZES) -> np.ndarray:
    return np.array([law(*row) for row in x])


@pytest.mark.parametrize(
    "law", [TRUE, Law(0.0, (5.0, 9.0), (0.1, 0.2)), Law(2.0, (300.0, 3.0), (0.9, 0.05))], ids=str
)
def test_losses_without_noise_give_the_law_back(law: Law) -> None:
    fitted = fit_law(SIZES, losses_of(law))
    np.testing.assert_allclose(losses_of(fitted), losses_of(law), atol=2e-6)
    np.testing.assert_allclose(fitted.exponents, law.exponents, atol=2e-3)
    assert fitted.floor == pytest.approx(law.floor, abs=0.02)


def test_by_hand() -> None:
    """L = 1 + 8/√N through N = 4, 16, 64, 256 is 5, 3, 2, 1.5."""
    x = np.array([[4.0], [16.0], [64.0], [256.0]])
    law = fit_law(x, np.array([5.0, 3.0, 2.0, 1.5]))
    assert (law.floor, *law.coefficients, *law.exponents) == pytest.approx((1, 8, 0.5), abs=1e-4)
    assert law(1024) == pytest.approx(1.25, abs=1e-4)


def test_no_gradient_descent_finds_a_better_law() -> None:
    """Torch's L-BFGS, started at the true constants, on the same squared errors."""
    random = np.random.default_rng(0)
    losses = losses_of(TRUE) + random.normal(0, 0.01, len(SIZES))
    ours = ((losses_of(fit_law(SIZES, losses)) - losses) ** 2).sum()
    x, y = torch.tensor(SIZES).log(), torch.tensor(losses)
    start = [1.2, math.log(20), math.log(30), 0.4, 0.3]
    p = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [p],
        max_iter=2000,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ((p[0] + (p[1:3] - p[3:] * x).exp().sum(1) - y) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert ours <= closure().item() * (1 + 1e-4)


def test_the_unit_of_a_size_does_not_matter() -> None:
    losses = losses_of(TRUE) + np.random.default_rng(1).normal(0, 0.01, len(SIZES))
    law, kilo = fit_law(SIZES, losses), fit_law(SIZES / 1000, losses)
    assert kilo(5, 300) == pytest.approx(law(5000, 300_000), abs=1e-9)
    assert kilo.exponents == pytest.approx(law.exponents)


def test_intervals_hold_as_often_as_they_say() -> None:
    """200 invented worlds, each measured with errors: 90 % intervals for a size beyond all."""
    random, law = np.random.default_rng(0), Law(1.5, (30.0,), (0.4,))
    x = np.geomspace(5e3, 2e5, 8)[:, None]
    held = 0
    for world in range(200):
        losses = losses_of(law, x) + random.normal(0, 0.01, len(x))
        to_come = law(4e5) + random.normal(0, 0.01)
        held += to_come in predict(x, losses, [4e5], n=100, seed=world)
    assert 0.83 <= held / 200 <= 0.96


def test_an_interval_grows_with_noise_with_distance_and_with_coverage() -> None:
    law, x = Law(1.5, (30.0,), (0.4,)), np.geomspace(5e3, 2e5, 8)[:, None]

    def width(noise: float, at: float, coverage: float = 0.9) -> float:
        noisy = losses_of(law, x) + np.random.default_rng(3).normal(0, noise, len(x))
        found = predict(x, noisy, [at], coverage=coverage)
        assert found.low < found.loss < found.high
        return found.high - found.low

    near, far = 3e5, 1e8
    assert width(0.02, near) > 1.5 * width(0.01, near)
    assert width(0.01, far) > 1.5 * width(0.01, near)
    assert width(0.01, near, 0.98) > width(0.01, near, 0.9) > width(0.01, near, 0.5)


def test_bootstrap_is_seeded_and_centred() -> None:
    losses = losses_of(TRUE) + np.random.default_rng(2).normal(0, 0.005, len(SIZES))
    first, again = (bootstrap(SIZES, losses, 50, seed=4) for _ in range(2))
    assert first[0] == again[0] and (first[1] == again[1]).all()
    fitted = fit_law(SIZES, losses)
    middle = np.median([law(6e4, 4e5) for law in first[0]])
    assert middle == pytest.approx(fitted(6e4, 4e5), abs=0.003)


def test_a_prediction_holds_its_ends() -> None:
    prediction = Prediction(2.0, 1.9, 2.1, 0.9)
    assert 1.9 in prediction and 2.1 in prediction
    assert 1.89 not in prediction and 2.11 not in prediction


@pytest.mark.parametrize("flops", [1e9, 1e12, 1e15])
def test_compute_optimal_is_the_lowest_of_all_divisions(flops: float) -> None:
    n_params, n_tokens = compute_optimal(TRUE, flops)
    assert 6 * n_params * n_tokens == pytest.approx(flops)
    divisions = n_params * np.geomspace(0.01, 100, 2001)
    losses = [TRUE(n, flops / 6 / n) for n in divisions]
    assert np.argmin(losses) == 1000


def test_compute_optimal_grows_with_the_exponents_of_the_paper() -> None:
    """N ∝ C^(β/(α+β)) and D ∝ C^(α/(α+β))."""
    small, large = compute_optimal(TRUE, 1e10), compute_optimal(TRUE, 1e12)
    assert math.log(large[0] / small[0], 100) == pytest.approx(0.3 / 0.7)
    assert math.log(large[1] / small[1], 100) == pytest.approx(0.4 / 0.7)


def test_best_learning_rate_between_the_rates_tried() -> None:
    """A parabola in log lr with its lowest point at 0.005 is found from any three around it."""
    rates = (0.001, 0.002, 0.004, 0.008, 0.016)
    losses = {lr: 2 + 0.1 * math.log(lr / 0.005) ** 2 for lr in rates}
    assert best_learning_rate(losses) == pytest.approx(0.005)


@pytest.mark.parametrize("losses", [{1e-3: 1.0, 2e-3: 2.0, 4e-3: 3.0}, {1e-3: 3.0, 2e-3: 2.0}])
def test_a_best_rate_at_the_end_of_its_row_is_refused(losses: dict[float, float]) -> None:
    with pytest.raises(ValueError, match="an end of the rates tried"):
        best_learning_rate(losses)


def test_power_law_is_a_line_between_logarithms() -> None:
    law = power_law([1e3, 1e4, 1e5], [0.05, 0.02, 0.008])
    assert law.exponents[0] == pytest.approx(math.log10(0.05 / 0.008) / 2)
    assert law(1e4) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("x", "losses", "message"),
    [
        (SIZES[:5], np.ones(5), "5 constants and needs more measurements than that, got 5"),
        (SIZES, np.ones(3), "expected a row of sizes for each loss"),
        (SIZES[:, 0], np.ones(12), "expected a row of sizes for each loss"),
        (-SIZES, np.ones(12), "sizes must be above 0"),
        (SIZES, np.full(12, np.nan), "losses finite"),
        (SIZES, -losses_of(TRUE), "no law with a floor and coefficients of at least 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: np.ndarray, losses: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_law(x, losses)


def test_the_lowest_point_of_losses_with_one_budget_is_that_of_their_law() -> None:
    """Hoffmann's second approach against his third, where the exponents are alike."""
    law, product = Law(1.0, (20.0, 20.0), (0.4, 0.4)), 1e10
    sizes = [3e4, 6e4, 1e5, 2e5, 4e5]
    best, loss = lowest(sizes, [law(n, product / n) for n in sizes])
    wanted, length = compute_optimal(law, 6 * product)
    assert best == pytest.approx(wanted, rel=0.05)
    assert loss == pytest.approx(law(wanted, length), abs=0.01)


@pytest.mark.parametrize("losses", [[3.0, 2.0, 1.2], [1.0, 2.0, 1.0]], ids=["falling", "a hill"])
def test_a_budget_without_a_lowest_point_is_refused(losses: list[float]) -> None:
    with pytest.raises(ValueError, match="no lowest point"):
        lowest([1e3, 1e4, 1e5], losses)
