"""Many options against one baseline: by SciPy where it has the test, by hand, by simulation."""

import numpy as np
import pytest
from scipy import stats

from llmtutor.evaluate.compare import holm
from llmtutor.evaluate.layout import Gap, compare_all


def rows(values: np.ndarray) -> dict[str, dict[int, float]]:
    """Row "0" is the baseline, and so on; a column a seed."""
    return {str(i): dict(enumerate(row.tolist())) for i, row in enumerate(values)}


def test_two_rows_are_the_paired_t_test() -> None:
    values = np.random.default_rng(0).normal(size=(2, 6))
    (gap,) = compare_all(rows(values), ["0"]).values()
    test = stats.ttest_rel(values[1], values[0])
    assert gap.p_value == pytest.approx(test.pvalue, abs=1e-12) == gap.adjusted_p
    assert gap.interval == pytest.approx(tuple(test.confidence_interval()), abs=1e-12)
    assert gap.difference == pytest.approx(values[1].mean() - values[0].mean())


def test_by_hand() -> None:
    """Three rows of two seeds. Residuals of the middle row and its seeds by the textbook:
    loss − mean of its row − mean of its column + mean of all."""
    values = np.array([[1.0, 1.2], [2.0, 2.6], [3.0, 3.1]])
    left = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    noise = (left**2).sum() / (2 * 1)
    found = compare_all(rows(values), ["0"])
    assert found["1"].degrees == 2 and found["1"].difference == pytest.approx(1.2)
    assert found["1"].error == pytest.approx((noise * (1 / 2 + 1 / 2)) ** 0.5)
    assert [g.adjusted_p for g in found.values()] == holm([g.p_value for g in found.values()])


def test_a_twin_of_the_baseline_halves_its_part_of_the_error() -> None:
    values = np.random.default_rng(1).normal(size=(6, 5))
    found = compare_all(rows(values), ["0", "1"])
    left = values.copy()
    left[:2] -= values[:2].mean()
    left[2:] -= values[2:].mean(1, keepdims=True)
    # rows are balanced over seeds, so that the seeds' shares are the means of the columns
    left -= left.mean(0)
    degrees = 30 - 5 - 4
    noise = (left**2).sum() / degrees
    assert found["3"].degrees == degrees and len(found) == 4
    assert found["3"].error == pytest.approx((noise * (1 / 5 + 1 / 10)) ** 0.5)
    assert found["3"].difference == pytest.approx(values[3].mean() - values[:2].mean())


def test_what_a_seed_gives_to_all_cancels_and_a_missing_run_is_no_harm() -> None:
    random = np.random.default_rng(2)
    values = random.normal(scale=0.01, size=(5, 5)) + 10 * random.normal(size=5)
    losses = rows(values + np.array([[0.0], [0.5], [0.0], [0.0], [0.0]]))
    del losses["1"][4], losses["2"][0]
    found = compare_all(losses, ["0"])
    assert found["1"].difference == pytest.approx(0.5, abs=0.03) and found["1"].n_seeds == 4
    assert found["1"].verdict == "worse" and found["1"].error < 0.01


@pytest.mark.parametrize("loud", [1.0, 5.0])
def test_a_family_without_differences_gets_a_verdict_in_one_study_of_twenty(loud: float) -> None:
    """Also where one option scatters five times as far as the rest."""
    random, wrong, one = np.random.default_rng(3), 0, 0
    for _ in range(400):
        values = random.normal(size=(12, 5))
        values[3] *= loud
        found = compare_all(rows(values), ["0", "1"])
        wrong += any(gap.verdict != "not distinguishable" for gap in found.values())
        one += found["3"].p_value < 0.05
    assert wrong / 400 < 0.08  # 5 %, and three standard errors of 400 studies
    assert one / 400 < 0.09


def test_a_loud_option_is_judged_by_its_own_runs() -> None:
    values = np.random.default_rng(4).normal(size=(20, 5))
    values[7] = np.array([-9.0, 9.0, -8.0, 8.0, 2.0])
    found = compare_all(rows(values), ["0"])
    assert [name for name, gap in found.items() if gap.loud] == ["7"]
    assert found["7"].error > 3 and found["7"].degrees < 6 and found["8"].error < 2


def test_three_runs_are_too_few_to_be_judged_by_their_own() -> None:
    values = np.random.default_rng(4).normal(size=(20, 3))
    values[7] = np.array([-9.0, 9.0, -8.0])
    found = compare_all(rows(values), ["0"])
    assert not any(gap.loud for gap in found.values())
    assert np.ptp([gap.error for gap in found.values()]) < 1e-12


def test_the_detectable_difference_is_told_in_four_studies_of_five() -> None:
    random, told = np.random.default_rng(5), 0
    least = np.mean(
        [compare_all(rows(random.normal(size=(8, 5))), ["0"])["1"].detectable for _ in range(50)]
    )
    for _ in range(300):
        values = random.normal(size=(8, 5))
        values[1] += least
        told += compare_all(rows(values), ["0"])["1"].verdict == "worse"
    assert 0.72 < told / 300 < 0.90


def test_equal_within_a_margin_is_two_one_sided_tests() -> None:
    values = np.random.default_rng(6).normal(size=(2, 7))
    (gap,) = compare_all(rows(values), ["0"]).values()
    pairs = values[1] - values[0]
    sides = ((-3.0, "greater"), (3.0, "less"))
    wanted = max(stats.ttest_1samp(pairs, m, alternative=a).pvalue for m, a in sides)
    assert gap.equal_p(3.0) == pytest.approx(wanted, rel=1e-9)
    assert Gap(0.0, 0.1, 4, False, 5, 1, 1.0, 0.05).equal_p(0.1 * 2.132) == pytest.approx(
        0.05, abs=1e-3
    )
    with pytest.raises(ValueError, match="margin"):
        gap.equal_p(0.0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="expected runs of the baseline"):
        compare_all({"a": {0: 1.0}}, ["b"])
    with pytest.raises(ValueError, match="expected runs of the baseline"):
        compare_all({"a": {0: 1.0}}, ["a"])
    with pytest.raises(ValueError, match="show no scatter"):
        compare_all({"a": {0: 1.0}, "b": {0: 2.0}}, ["a"])
    with pytest.raises(ValueError, match="show no scatter"):
        compare_all({"a": {0: 1.0, 1: 2.0}, "b": {0: 2.0, 1: 3.0}}, ["a"])
    with pytest.raises(ValueError, match=r"b: the loss of seed 1 is inf"):
        compare_all({"a": {0: 1.0, 1: 1.0}, "b": {0: 2.0, 1: float("inf")}}, ["a"])
