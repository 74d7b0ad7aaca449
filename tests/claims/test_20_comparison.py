"""What chapter 20 says of seeds, power and families of tests."""

import numpy as np
from scipy import stats

from llmtutor.evaluate.compare import compare, detectable_difference
from llmtutor.experiments.comparison import CORPORA, losses, verdicts
from llmtutor.experiments.study import load_record


def test_seeds_for_the_measured_difference_restate_the_p_value() -> None:
    """Sorted by p they are sorted: they say nothing that p does not."""
    for corpus in CORPORA:
        by_p = sorted(verdicts(load_record("comparison"), corpus).values(), key=lambda c: c.p_value)
        needed = [c.seeds_needed or np.inf for c in by_p]
        assert needed == sorted(needed)


def test_what_is_detectable_does_not_depend_on_what_was_measured() -> None:
    baseline = dict.fromkeys(range(8), 3.0)
    scatter = dict(enumerate(np.random.default_rng(0).normal(0, 0.02, 8)))
    near, far = (
        compare({seed: 3.0 + x + shift for seed, x in scatter.items()}, baseline)
        for shift in (0.0, 0.5)
    )
    assert near.seeds_needed != far.seeds_needed
    least = [detectable_difference(c.deviation, c.n_seeds) for c in (near, far)]
    assert np.isclose(*least)


def test_a_part_that_could_gain_as_much_as_eight_pairs_detect_is_not_ruled_out() -> None:
    """GELU, SwiGLU and RMSNorm: 0.02 to 0.03 nats detectable, gains above 0.02 ruled out."""
    for corpus in CORPORA:
        found = verdicts(load_record("comparison"), corpus)
        for name in ("gelu", "swiglu", "rmsnorm"):
            c = found[name]
            least = detectable_difference(c.deviation, c.n_seeds, alpha=0.05 / len(found))
            assert 0.015 < least < 0.035
            assert c.t_interval[0] > -0.0205 and c.verdict == "not distinguishable"


def test_one_head_lost_is_not_detectable_below_five_hundredths() -> None:
    found = verdicts(load_record("comparison"), CORPORA[0])
    c = found["head lost"]
    assert round(detectable_difference(c.deviation, 8, alpha=0.05 / len(found)), 2) == 0.05


def test_the_null_on_tinystories_scatters_three_times_as_far_as_its_twin() -> None:
    alone = losses(load_record("comparison"), "tinystories-sample")
    one, other = (np.std(list(alone[n].values()), ddof=1) for n in ("baseline", "baseline again"))
    assert 3 < other / one < 4


def test_the_smallest_of_ten_p_values_is_below_three_hundredths_in_a_fifth_of_studies() -> None:
    random = np.random.default_rng(0)
    baseline, variants = random.normal(size=(4000, 1, 8)), random.normal(size=(4000, 10, 8))
    smallest = stats.ttest_rel(variants, baseline, axis=2).pvalue.min(1)
    assert 0.18 < (smallest <= 0.03).mean() < 0.23


def test_in_the_modern_stack_two_kv_heads_decode_no_faster_than_eight() -> None:
    """The interval hardly holds 1, and it is one of some thirty."""
    costs = load_record("comparison-cost")
    two, eight = (
        {
            run["settings"]["round"]: np.log(run["result"]["decode_tokens_per_second"])
            for run in costs.runs
            if run["settings"]["variant"] == name
        }
        for name in ("modern, gqa-2", "modern")
    )
    low, high = np.exp(compare(two, eight).t_interval)
    assert (round(low, 2), round(high, 2)) == (0.70, 1.00)
