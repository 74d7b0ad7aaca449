"""The comparison: verdicts, rates and costs come out of the raw records again, by other means."""

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType

import numpy as np
import pytest
from scipy import stats

from llmtutor.experiments import comparison, study, trial, variants
from llmtutor.experiments.catalogue import CATALOGUE
from llmtutor.experiments.comparison import (
    CORPORA,
    HEAD_CHANCE,
    RATES,
    ROUNDS,
    SEEDS,
    best_rate,
    losses,
    verdicts,
)
from llmtutor.experiments.study import Record, load_record, run_study, size
from llmtutor.experiments.variants import VARIANTS, Variant, variant_config
from llmtutor.model.presets import build

each_corpus = pytest.mark.parametrize("corpus", CORPORA)


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("comparison")


@pytest.fixture(scope="module")
def rates() -> Record:
    return load_record("comparison-rates")


def by_hand(record: Record, corpus: str) -> dict[str, np.ndarray]:
    """Final losses by variant, in the order of the seeds, without any function of the library."""
    found: dict[str, dict[int, float]] = {}
    for run in record.runs:
        if run["settings"]["corpus"] == corpus:
            by_seed = found.setdefault(run["settings"]["variant"], {})
            by_seed[run["settings"]["seed"]] = run["result"]["valid_loss"]
    return {name: np.array([by_seed[s] for s in range(SEEDS)]) for name, by_seed in found.items()}


@each_corpus
def test_at_least_five_paired_seeds(record: Record, corpus: str) -> None:
    found = losses(record, corpus)
    assert list(found) == list(VARIANTS)
    assert all(list(by_seed) == list(range(SEEDS)) for by_seed in found.values())
    assert SEEDS >= 5


@each_corpus
def test_verdicts_by_scipy_and_holm_by_definition(record: Record, corpus: str) -> None:
    """Holm's rule in its original form: reject in order of p until the first p above α/(m − i)."""
    found, raw = verdicts(record, corpus), by_hand(record, corpus)
    baseline = raw.pop("baseline")
    tests = {name: stats.ttest_rel(values, baseline) for name, values in raw.items()}
    ordered = sorted(tests, key=lambda name: tests[name].pvalue)
    told: set[str] = set()
    for i, name in enumerate(ordered):
        if tests[name].pvalue >= 0.05 / (len(ordered) - i):
            break
        told.add(name)
    assert found.keys() == raw.keys()
    for name, answer in found.items():
        test, differences = tests[name], raw[name] - baseline
        assert answer.difference == pytest.approx(differences.mean(), abs=1e-12)
        assert answer.p_value == pytest.approx(test.pvalue, rel=1e-9)
        low, high = test.confidence_interval(0.95)
        assert answer.t_interval == pytest.approx((low, high), abs=1e-9)
        sign = "better" if differences.mean() < 0 else "worse"
        assert answer.verdict == (sign if name in told else "not distinguishable")


@each_corpus
def test_a_planted_null_is_not_told(record: Record, corpus: str) -> None:
    assert verdicts(record, corpus)["baseline again"].verdict == "not distinguishable"


def test_a_planted_defect_is_worse_on_both_corpora(record: Record) -> None:
    """On one corpus in the comparison itself, on the other with the new seeds that it asked for."""
    assert verdicts(record, "tinystories-sample")["head lost"].verdict == "worse"
    again = load_record("comparison-head")
    assert verdicts(again, "shakespeare")["head lost"].verdict == "worse"


def test_the_question_asked_again_was_planned_and_its_seeds_are_new(record: Record) -> None:
    again = load_record("comparison-head")
    first = verdicts(record, "shakespeare")["head lost"]
    # the sample size of a paired t-test, by simulation: power 0.9 at the planned number
    n = again.plan["n_seeds"]
    draws = np.random.default_rng(0).normal(first.difference, first.deviation, (4000, n))
    told = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert told == pytest.approx(HEAD_CHANCE, abs=0.03)
    seeds = {run["settings"]["seed"] for run in again.runs}
    assert len(seeds) == n and not seeds & {run["settings"]["seed"] for run in record.runs}
    assert max(run["finished"] for run in record.runs) <= again.planned


@each_corpus
def test_a_null_does_differ_from_seed_to_seed(record: Record, corpus: str) -> None:
    """Else it would be the same run twice, and its verdict would prove nothing."""
    raw = by_hand(record, corpus)
    assert (raw["baseline again"] != raw["baseline"]).all()


def test_learning_rates_are_those_that_the_rates_say(record: Record, rates: Record) -> None:
    for name, variant in VARIANTS.items():
        wanted = best_rate(rates, variant.rate_of or name)
        assert record.plan["learning_rate"][name] == pytest.approx(wanted, abs=1e-5)
        assert RATES[0] <= wanted <= RATES[-1]
    for run in record.runs:
        settings = run["settings"]
        assert settings["lr"] == record.plan["learning_rate"][settings["variant"]]


def test_a_best_rate_by_hand(rates: Record) -> None:
    """The vertex of the parabola through three points at equal distances of the logarithm."""
    tried = {
        run["settings"]["lr"]: run["result"]["valid_loss"]
        for run in rates.runs
        if run["settings"]["variant"] == "baseline"
    }
    left, middle, right = (tried[lr] for lr in (0.008, 0.016, 0.032))
    assert middle < min(left, right)
    shift = (left - right) / (2 * (left - 2 * middle + right))
    assert best_rate(rates, "baseline") == pytest.approx(0.016 * 2**shift, abs=1e-5)


def test_the_seed_of_the_rates_is_none_of_the_comparison(record: Record, rates: Record) -> None:
    seeds = [{run["settings"]["seed"] for run in which.runs} for which in (record, rates)]
    assert not seeds[0] & seeds[1]
    assert max(run["finished"] for run in rates.runs) <= record.planned


def test_sizes_in_the_record_are_those_of_the_models(record: Record) -> None:
    for name in VARIANTS:
        n_params = sum(p.numel() for p in build(variant_config(name)).parameters())
        runs = [run for run in record.runs if run["settings"]["variant"] == name]
        assert {run["result"]["n_params"] for run in runs} == {n_params}


def test_a_variant_that_lost_its_head_trained_as_the_baseline_did(record: Record) -> None:
    """The same seed, the same machine: the same curve to the last digit."""
    curves = {
        (run["settings"]["variant"], run["settings"]["corpus"], run["settings"]["seed"]): run
        for run in record.runs
    }
    for corpus in CORPORA:
        for seed in range(SEEDS):
            whole, lost = (curves[n, corpus, seed] for n in ("baseline", "head lost"))
            if whole["environment"] == lost["environment"]:
                assert whole["result"]["curve"] == lost["result"]["curve"]


def test_seeds_needed_are_enough_and_one_less_is_not(record: Record) -> None:
    """By simulation: the fewest pairs that tell a difference like the measured one in 80 %."""
    found = verdicts(record, CORPORA[0])
    random = np.random.default_rng(0)

    def told(name: str, n: int) -> float:
        draws = random.normal(found[name].difference, found[name].deviation, (4000, n))
        p = stats.ttest_1samp(draws, 0, axis=1).pvalue
        return float((p < 0.05 / len(found)).mean())

    tried = [n for n, c in found.items() if c.seeds_needed and 4 <= c.seeds_needed <= 100]
    assert len(tried) > 5
    for name in tried:
        needed = found[name].seeds_needed
        assert needed is not None
        assert told(name, needed) > 0.77 and told(name, needed - 1) < 0.83, name


def test_costs_are_recorded_for_every_variant_in_rounds() -> None:
    costs = load_record("comparison-cost")
    order = [(run["settings"]["round"], run["settings"]["variant"]) for run in costs.runs]
    assert order == [(i, name) for i in range(ROUNDS) for name in VARIANTS]
    for run in costs.runs:
        result, blocks = run["result"], variant_config(run["settings"]["variant"]).blocks
        heads = sum(block.mixer.kv_heads for block in blocks)
        assert result["kv_bytes_per_token"] == 2 * heads * 8 * 4
        assert result["peak_bytes"] > 16 * result["n_params"]
    at = {
        name: [r["result"] for r in costs.runs if r["settings"]["variant"] == name]
        for name in VARIANTS
    }
    for name, results in at.items():
        assert len({(r["peak_bytes"], r["forward_flops_per_token"]) for r in results}) == 1, name
        speeds = [r["train_tokens_per_second"] for r in results]
        assert stdev(speeds) < 0.2 * mean(speeds), name
    assert 8 * at["mqa"][0]["kv_bytes_per_token"] == at["baseline"][0]["kv_bytes_per_token"]


# One variant more --------------------------------------------------------------------------------


@pytest.fixture
def one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A variant that nobody has trained yet, in a copy of the records."""
    changes = {"position": "rope", "n_kv_heads": 2}
    more = MappingProxyType({**VARIANTS, "rope, gqa-2": Variant("stack", changes)})
    for module in (variants, comparison, trial):
        monkeypatch.setattr(module, "VARIANTS", more)
    for name in ("comparison", "comparison-rates"):
        shutil.copy(study.results_dir() / f"{name}.json", tmp_path)
    monkeypatch.setattr(study, "results_dir", lambda: tmp_path)
    return tmp_path


def test_a_new_variant_is_counted_and_leaves_the_verdicts_on_the_others(
    one_more: Path, record: Record
) -> None:
    sizes = {name: size(CATALOGUE[name])[:2] for name in ("comparison-rates", "comparison")}
    assert sizes == {"comparison-rates": (64, 68), "comparison": (336, 352)}
    assert list(losses(record, CORPORA[0])) == list(VARIANTS)
    assert len(verdicts(record, CORPORA[1])) == len(VARIANTS) - 1


def test_a_new_variant_waits_for_its_rate_and_is_then_trained_beside_the_recorded(
    one_more: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(*, variant: str, corpus: str, lr: float, seed: int) -> dict[str, float | None]:
        assert variant == "rope, gqa-2"
        return {"valid_loss": None if lr == 0.032 else abs(np.log(lr / 0.008)) + 0.001 * seed}

    before = (one_more / "comparison.json").read_bytes()
    rates, whole = (
        replace(CATALOGUE[name], run=fake) for name in ("comparison-rates", "comparison")
    )
    with pytest.raises(ValueError, match="run comparison-rates"):
        next(run_study(whole))
    assert (one_more / "comparison.json").read_bytes() == before
    assert len(list(run_study(rates))) == 4  # one of them diverges, and is none to choose from
    made = list(run_study(whole, limit=9))
    assert list(losses(load_record("comparison"), CORPORA[0])) == list(VARIANTS)  # not whole yet
    made += run_study(whole)
    assert [(done, n) for done, n, _ in made] == [(337 + i, 352) for i in range(16)]
    after = load_record("comparison")
    assert after.runs[:336] == record.runs
    rate = after.plan["learning_rate"].pop("rope, gqa-2")
    assert after.plan == record.plan and rate == pytest.approx(0.008)
    assert after.added[0]["plan"] == {"learning_rate": {"rope, gqa-2": rate}}
    assert list(losses(after, CORPORA[0])["rope, gqa-2"]) == list(range(SEEDS))
