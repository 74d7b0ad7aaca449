"""Intervals and tests: those of SciPy where it has them, and what they promise where it has not."""

import numpy as np
import pytest
from scipy import stats

from llmtutor.evaluate.certainty import (
    against_chance,
    chance_p,
    compare_marks,
    guessing,
    resampled_ratio,
    wilson,
)
from llmtutor.evaluate.compare import bootstrap_interval


def test_intervals_are_scipys() -> None:
    for right, n in ((0, 5), (3, 7), (50, 100), (2010, 2010), (1, 1)):
        wanted = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert wilson(right, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert wilson(8, 10, alpha=0.5)[0] > wilson(8, 10)[0]
    with pytest.raises(ValueError, match="0 <= right <= n"):
        wilson(3, 2)


def test_guessing_with_equal_chances_is_scipys_binomial_test() -> None:
    for right, n, chance in ((0, 4, 0.25), (37, 100, 0.25), (250, 500, 0.5), (610, 1000, 0.5)):
        wanted = stats.binomtest(right, n, chance).pvalue
        assert chance_p(right, [chance] * n) == pytest.approx(wanted, rel=1e-6)


def test_guessing_with_several_chances() -> None:
    """Two questions with two answers and one with four, by hand; a thousand, by their moments."""
    assert guessing([0.5, 0.25, 0.5]).tolist() == pytest.approx([3 / 16, 7 / 16, 5 / 16, 1 / 16])
    assert chance_p(3, [0.5, 0.25, 0.5]) == pytest.approx(1 / 16)
    chances = [0.25] * 900 + [0.2] * 60 + [1 / 3] * 40
    likely, counts = guessing(chances), np.arange(1001)
    assert likely.sum() == pytest.approx(1)
    assert (likely * counts).sum() == pytest.approx(sum(chances))
    variance = (likely * (counts - sum(chances)) ** 2).sum()
    assert variance == pytest.approx(sum(p * (1 - p) for p in chances))


def test_verdicts() -> None:
    assert against_chance(50, [0.25] * 100) == "above chance"
    assert against_chance(27, [0.25] * 100) == "not distinguishable from chance"
    assert against_chance(10, [0.25] * 100) == "below chance"
    for bad in ([], [0.0], [1.0]):
        with pytest.raises(ValueError, match="expected the chances"):
            guessing(bad)
    with pytest.raises(ValueError, match="expected 0 to 2 right answers, got 3"):
        chance_p(3, [0.5, 0.5])


def test_pairs_of_marks() -> None:
    first = [True] * 30 + [False] * 20
    second = [True] * 18 + [False] * 12 + [True] * 2 + [False] * 18
    found = compare_marks(first, second)
    assert (found.only_first, found.only_second, found.n) == (12, 2, 50)
    assert found.difference == 0.2 and found.verdict == "better"
    assert found.p_value == pytest.approx(stats.binomtest(12, 14).pvalue)
    assert found.interval[0] < 0.2 < found.interval[1]
    assert compare_marks(second, first).verdict == "worse"
    same = compare_marks(first, first)
    assert same.p_value == 1 and same.interval == (0, 0) and same.verdict == "not distinguishable"
    for bad in ([], [True]):
        with pytest.raises(ValueError, match="the same questions"):
            compare_marks(bad, first)


def test_counting_equal_values_together_is_the_same_bootstrap() -> None:
    marks = np.repeat([-1.0, 0.0, 1.0], [15, 60, 25])
    wanted = bootstrap_interval(marks)
    assert resampled_ratio(marks) == pytest.approx(wanted, abs=0.01)
    # A ratio of sums: as the normal approximation has it, within a tenth.
    rng = np.random.default_rng(1)
    sizes = rng.integers(100, 900, 400).astype(float)
    values = sizes * rng.normal(2.0, 0.3, 400)
    low, high = resampled_ratio(values, sizes)
    ratio = values.sum() / sizes.sum()
    spread = np.std(values - ratio * sizes, ddof=1) / sizes.mean() / np.sqrt(400)
    assert low < ratio < high
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    with pytest.raises(ValueError, match="at least one value"):
        resampled_ratio(np.zeros(0))
