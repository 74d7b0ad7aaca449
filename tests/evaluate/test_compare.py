"""Verdicts on variants against scipy, by hand, and on many studies whose truth was planted."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmtutor.evaluate.compare import (
    MOST_SEEDS,
    bootstrap_interval,
    compare,
    compare_family,
    compare_pairs,
    detectable_difference,
    holm,
    power,
    seeds_needed,
    t_interval,
)

BASELINE = {1: 3.02, 2: 2.97, 3: 3.11, 4: 3.05, 5: 2.99}
VARIANT = {1: 2.95, 2: 2.93, 3: 3.08, 4: 2.95, 5: 2.97}


def study(
    rng: np.random.Generator, n_seeds: int, effects: dict[str, float], noise: float = 0.01
) -> tuple[dict[str, dict[int, float]], dict[int, float]]:
    """Losses of variants and a baseline; what a seed gives to all is ten times the noise."""
    seeds = range(n_seeds)
    luck = rng.normal(3.0, 10 * noise, n_seeds)
    losses = {
        name: dict(zip(seeds, luck + effect + rng.normal(0, noise, n_seeds), strict=True))
        for name, effect in {**effects, "baseline": 0.0}.items()
    }
    return losses, losses.pop("baseline")


# Against scipy ------------------------------------------------------------------------------------


def test_mean_p_value_and_t_interval_are_those_of_scipy():
    ours = compare(VARIANT, BASELINE, alpha=0.1)
    theirs = stats.ttest_rel(list(VARIANT.values()), list(BASELINE.values()))
    assert ours.n_seeds == 5
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-10)
    assert ours.t_interval == pytest.approx(theirs.confidence_interval(0.9), rel=1e-10)
    assert ours.adjusted_p == ours.p_value
    differences = np.array([VARIANT[seed] - BASELINE[seed] for seed in sorted(VARIANT)])
    assert ours.bootstrap_interval == bootstrap_interval(differences, 0.1)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_bootstrap_interval_is_that_of_scipy(n: int):
    differences = np.random.default_rng(n).gamma(2.0, size=n)  # skewed: quantiles not swapped
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", rng=1
    )
    spread = differences.std()
    assert bootstrap_interval(differences, n_draws=20_000, seed=2) == pytest.approx(
        theirs.confidence_interval, abs=0.03 * spread
    )
    assert bootstrap_interval(differences) == bootstrap_interval(differences)


def test_bootstrap_of_two_differences_by_hand():
    # Means of two draws from {0, 1}: 0, ½, ½, 1, each in a quarter of the draws.
    both = np.array([0.0, 1.0])
    assert bootstrap_interval(both, 0.4) == (0.0, 1.0)
    assert bootstrap_interval(both, 0.6) == (0.5, 0.5)


def test_power_is_an_integral_over_the_deviation_that_a_study_happens_to_see():
    """P(|Z + c| > t · s), averaged over the distribution of s: nothing noncentral."""
    at, weights = np.polynomial.legendre.leggauss(400)
    for effect in (0.0, 1e-200, 1e-9, 0.1, 1.0, 3.0, 10.0, 100.0, 1000.0):
        for alpha in (0.05, 0.05 / 40):
            for n in (2, 3, 5, 30, 1000):
                s = np.sqrt(stats.chi2.ppf((at + 1) / 2, n - 1) / (n - 1))
                bound, centre = stats.t.isf(alpha / 2, n - 1) * s, math.sqrt(n) * effect
                told = stats.norm.sf(bound - centre) + stats.norm.cdf(-bound - centre)
                want = float((weights / 2 * told).sum())
                assert power(effect, 1.0, n, alpha) == pytest.approx(want, abs=1e-3)


# By hand ------------------------------------------------------------------------------------------


def test_by_hand():
    # Differences −1, −2, −3: mean −2, deviation 1, t = −2√3 with two degrees of freedom, where
    # p = 1 − |t| / √(2 + t²) = 1 − √12 / √14 and the quantile for alpha = 0.5 is √(2/3).
    one = compare({1: 2.0, 2: 2.0, 3: 2.0}, {1: 3.0, 2: 4.0, 3: 5.0}, alpha=0.5)
    assert (one.difference, one.deviation) == pytest.approx((-2, 1))
    assert one.p_value == pytest.approx(1 - math.sqrt(12 / 14))
    half = math.sqrt(2 / 3) / math.sqrt(3)
    assert one.t_interval == pytest.approx((-2 - half, -2 + half))
    assert one.verdict == "better"


def test_lower_is_better_and_the_mirror_image_is_worse():
    there, back = compare(VARIANT, BASELINE), compare(BASELINE, VARIANT)
    assert (there.verdict, back.verdict) == ("better", "worse")
    assert there.difference == -back.difference < 0
    assert there.p_value == back.p_value
    assert there.t_interval == tuple(-x for x in reversed(back.t_interval))


def test_pairs_are_by_seed_not_by_order():
    shuffled = {seed: VARIANT[seed] for seed in (4, 2, 5, 1, 3)}
    assert compare(shuffled, BASELINE) == compare(VARIANT, BASELINE)


def test_holm_by_hand():
    # 0.01·4 = 0.04; 0.02·3 = 0.06; 0.03·2 = 0.06; 0.04·1 = 0.04, held up by the 0.06 before it.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]  # never above one
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_as_the_paper_steps_down(p_values: list[float], alpha: float):
    """The procedure as published: go up from the smallest until one is not below alpha / left."""
    rejected = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        left = len(p_values) - rank
        if not left * p_values[i] < alpha:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p < alpha} == rejected


# Studies whose truth is planted -------------------------------------------------------------------


def test_intervals_hold_the_truth_as_often_as_they_say():
    n_studies = 2000
    rng = np.random.default_rng(0)
    by_t, by_bootstrap = {}, {}
    for n in (5, 30):
        draws = rng.normal(0.3, 1.0, (n_studies, n))
        by_t[n] = np.mean([low < 0.3 < high for low, high in map(t_interval, draws)])
        some = [bootstrap_interval(d, n_draws=600, seed=i) for i, d in enumerate(draws[:1500])]
        by_bootstrap[n] = np.mean([low < 0.3 < high for low, high in some])
    error = 4 * math.sqrt(0.95 * 0.05 / n_studies)
    assert by_t[5] == pytest.approx(0.95, abs=error)
    assert by_t[30] == pytest.approx(0.95, abs=error)
    assert by_bootstrap[5] == pytest.approx(0.83, abs=0.03)  # as its docstring admits
    assert by_bootstrap[30] == pytest.approx(0.94, abs=0.03)


def test_planted_null_is_not_distinguishable():
    same, other = compare(BASELINE, dict(BASELINE)), {s: x + 0.0 for s, x in BASELINE.items()}
    assert (same.verdict, same.difference, same.p_value) == ("not distinguishable", 0, 1)
    assert same.t_interval == same.bootstrap_interval == (0, 0)
    assert same.seeds_needed is None
    family = compare_family({"twin": other, "variant": VARIANT}, BASELINE)
    assert family["twin"].verdict == "not distinguishable"


def test_a_difference_that_no_seed_changes_is_told():
    steady = compare({1: 3.5, 2: 2.5}, {1: 3.0, 2: 2.0})
    assert (steady.verdict, steady.p_value, steady.seeds_needed) == ("worse", 0, 2)


def test_pairs_with_baselines_of_their_own_are_one_family() -> None:
    """Each is compared with its own side, and Holm's factors are those of two questions."""
    shifted = {seed: loss + 1 for seed, loss in BASELINE.items()}
    noisy = {1: 4.1, 2: 3.9, 3: 4.1, 4: 4.1, 5: 3.9}
    found = compare_pairs({"a": (VARIANT, BASELINE), ("b", 2): (noisy, shifted)})
    first, second = compare(VARIANT, BASELINE), compare(noisy, shifted)
    assert found["a"].difference == first.difference
    assert found["b", 2].difference == second.difference
    assert first.p_value < second.p_value
    assert found["a"].adjusted_p == pytest.approx(2 * first.p_value)
    assert found["b", 2].adjusted_p == max(second.p_value, 2 * first.p_value)
    with pytest.raises(ValueError, match="b: the loss of seed 2 is inf"):
        compare_pairs({"a": (VARIANT, BASELINE), "b": (noisy | {2: math.inf}, shifted)})


def test_family_of_nulls_gives_a_wrong_verdict_in_a_twentieth_of_studies():
    rng = np.random.default_rng(1)
    n_studies, n_variants = 4000, 8
    variants = rng.normal(size=(n_studies, n_variants, 5))
    differences = variants - rng.normal(size=(n_studies, 1, 5))  # one baseline for all of them
    alone = stats.ttest_1samp(differences, 0, axis=2).pvalue
    family = np.array([holm(p_values) for p_values in alone.tolist()])
    error = 4 * math.sqrt(0.05 * 0.95 / n_studies)
    assert 0.02 < (family < 0.05).any(1).mean() < 0.05 + error
    assert (alone < 0.05).any(1).mean() > 0.15  # what the correction is for


def test_planted_differences_are_told_through_the_luck_of_seeds():
    rng = np.random.default_rng(2)
    effects = {"better": -0.1, "worse": 0.1, "null": 0.0}
    variants, baseline = study(rng, 5, effects)
    family = compare_family(variants, baseline)
    verdicts = {name: one.verdict for name, one in family.items()}
    assert verdicts == {"better": "better", "worse": "worse", "null": "not distinguishable"}
    p_values = [one.p_value for one in family.values()]
    assert [one.adjusted_p for one in family.values()] == holm(p_values)
    # Without pairs the luck of seeds hides them.
    unpaired = stats.ttest_ind(list(variants["better"].values()), list(baseline.values()))
    assert unpaired.pvalue > 0.05
    for name, one in family.items():
        alone = compare(variants[name], baseline)
        assert one.difference == alone.difference
        assert one.p_value == alone.p_value <= one.adjusted_p
        assert one.seeds_needed == seeds_needed(one.difference, one.deviation, alpha=0.05 / 3)
        assert alone.seeds_needed == seeds_needed(one.difference, one.deviation)
    assert alone.seeds_needed != one.seeds_needed  # of the null: the family asks for more


@pytest.mark.parametrize("effect", [0.7, 2.0])
def test_seeds_needed_tell_and_fewer_do_not(effect: float):
    n = seeds_needed(effect, 1.0)
    assert n is not None
    rng = np.random.default_rng(3)
    told = {}
    for seeds in (n, n // 2):
        draws = rng.normal(effect, 1.0, (4000, seeds))
        told[seeds] = float((stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean())
    assert told[n] > 0.8 - 4 * math.sqrt(0.8 * 0.2 / 4000)
    assert told[n // 2] < 0.7
    assert power(effect, 1.0, n - 1) < 0.8 <= power(effect, 1.0, n)


@pytest.mark.parametrize("n", [2, 3, 8, 30])
def test_what_is_detectable_has_just_the_chance_and_needs_just_these_seeds(n: int):
    for alpha, chance in ((0.05, 0.8), (0.0025, 0.9)):
        effect = detectable_difference(0.02, n, alpha=alpha, chance=chance)
        assert power(effect, 0.02, n, alpha) == pytest.approx(chance, abs=1e-6)
        assert effect == pytest.approx(
            0.02 * detectable_difference(1, n, alpha=alpha, chance=chance)
        )
        assert seeds_needed(1.001 * effect, 0.02, alpha=alpha, chance=chance) == n


def test_seeds_needed_by_the_table_and_at_its_ends():
    # Paired t-test, two-sided 0.05, power 0.8: 199, 34 and 15 pairs (Cohen 1988's effect sizes).
    assert [seeds_needed(d, 1.0) for d in (0.2, 0.5, 0.8)] == [199, 34, 15]
    assert seeds_needed(-0.5, 1.0) == seeds_needed(5.0, 10.0) == 34
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-6, 1.0) is None
    just = 2.8016 / math.sqrt(MOST_SEEDS)  # normal quantiles of 0.975 and 0.8
    assert seeds_needed(0.99 * just, 1.0) is None
    assert 9700 < (seeds_needed(1.01 * just, 1.0) or 0) <= MOST_SEEDS
    assert seeds_needed(1.0, 0.0) == 2
    assert seeds_needed(1e-200, 1.0) is None
    counts = [seeds_needed(d, 1.0, alpha=0.001) or 0 for d in np.geomspace(0.1, 1e5, 60)]
    assert all(a >= b >= 2 for a, b in pairwise(counts))


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare({1: 1.0, 2: 1.0}, {1: 1.0, 3: 1.0}), "same seeds on both sides"),
        (lambda: compare({1: 1.0}, {1: 1.0}), "at least two seeds, got 1"),
        (lambda: compare({1: 1.0, 2: math.nan}, {1: 1.0, 2: 1.0}), "seed 2 is nan; did the run"),
        (lambda: compare({1: 1.0, 2: 1.0}, {1: math.inf, 2: 1.0}), "seed 1 is inf"),
        (lambda: compare(VARIANT, BASELINE, alpha=0.0), "alpha must be between 0 and 1, got 0.0"),
        (lambda: compare(VARIANT, BASELINE, alpha=5), "alpha must be between 0 and 1, got 5"),
        (lambda: compare_family({}, BASELINE), "the family has no variants"),
        (lambda: compare_family({"rope": {1: 1.0}}, BASELINE), "rope: expected the same seeds"),
        (lambda: holm([0.5, 1.5]), "between 0 and 1, got 1.5"),
        (lambda: holm([math.nan]), "between 0 and 1, got nan"),
        (lambda: power(1.0, 0.0, 5), "deviation above 0 and at least two seeds, got 0.0"),
        (lambda: power(1.0, 1.0, 1), "at least two seeds, got 1.0 and 1 seeds"),
        (lambda: seeds_needed(1.0, -1.0), "deviation of at least 0, got 0.8 and -1.0"),
        (lambda: seeds_needed(1.0, 1.0, chance=1.0), "a chance between 0 and 1"),
        (
            lambda: detectable_difference(1.0, 5, chance=0.01),
            "between alpha = 0.05 and 1, got 0.01",
        ),
    ],
)
def test_bad_input_says_what_was_expected(call, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
