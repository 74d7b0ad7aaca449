"""Equivalence: the two one-sided tests by SciPy, the interval that says the same, and how often."""

import numpy as np
import pytest
from scipy import stats

from llmtutor.evaluate.compare import compare
from llmtutor.evaluate.equivalence import equivalence_p


def compared(differences: np.ndarray):
    baseline = dict.fromkeys(range(len(differences)), 3.0)
    return compare({seed: 3.0 + d for seed, d in enumerate(differences)}, baseline)


def test_it_is_two_one_sided_tests_and_the_ninety_per_cent_interval() -> None:
    random = np.random.default_rng(0)
    told = []
    for shift in (-0.03, -0.01, 0.0, 0.01, 0.03):
        differences = random.normal(shift, 0.005, 5)
        found = equivalence_p(compared(differences), 0.015)
        above = stats.ttest_1samp(differences, -0.015, alternative="greater").pvalue
        below = stats.ttest_1samp(differences, 0.015, alternative="less").pvalue
        assert found == pytest.approx(max(above, below), rel=1e-6)
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        assert (found < 0.05) == (low > -0.015 and high < 0.015)
        told.append(found < 0.05)
    assert any(told) and not all(told)


def test_two_that_differ_by_the_margin_are_seldom_called_equal() -> None:
    """That is the error that it must not make in more than a twentieth of studies."""
    random = np.random.default_rng(1)
    wrong = [
        equivalence_p(compared(random.normal(0.02, 0.005, 5)), 0.02) < 0.05 for _ in range(400)
    ]
    assert 0.02 < np.mean(wrong) < 0.08


def test_the_same_for_every_seed() -> None:
    same = compared(np.full(3, 0.0))
    assert equivalence_p(same, 1e-9) == 0.0
    apart = compared(np.full(3, 0.5))
    assert apart.deviation == 0 and equivalence_p(apart, 0.4) == 1.0
    with pytest.raises(ValueError, match="margin"):
        equivalence_p(same, 0.0)
