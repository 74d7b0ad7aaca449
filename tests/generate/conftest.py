"""Pearson's chi-square test, for draws from a distribution that is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def p_value(statistic: float, degrees: int) -> float:
    """How often chance alone gives this χ² or more: Q(k/2, χ²/2).

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.4.19.
    """
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return torch.special.gammaincc(half[0], half[1]).item()


# From the printed table 26.8 of the same book, to its three decimals.
for printed, freedom, share in [(3.841, 1, 0.05), (18.307, 10, 0.05), (135.807, 100, 0.01)]:
    assert abs(p_value(printed, freedom) - share) < 2e-5, (printed, freedom, share)


@pytest.fixture
def assert_drawn_from() -> Callable[[Tensor, Tensor], None]:
    """Fails if the counts are unlikely under the probabilities, or impossible.

    Chance alone fails it for one seed in a thousand, and the seeds of the tests are fixed.
    """

    def check(counts: Tensor, probs: Tensor) -> None:
        assert counts[probs == 0].sum() == 0, "drawn although its probability is 0"
        counts, probs = counts[probs > 0].double(), probs[probs > 0].double()
        expected = counts.sum() * probs / probs.sum()
        assert expected.min() >= 5, "too few draws for the test to hold"
        statistic = ((counts - expected) ** 2 / expected).sum().item()
        assert p_value(statistic, len(counts) - 1) > 1e-3

    return check
