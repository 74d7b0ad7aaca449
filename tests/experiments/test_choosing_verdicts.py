"""What the runs of ``choosing`` say: recomputed by other means, made-up runs and recorded ones."""

import math
from statistics import mean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from llmtutor.experiments.choosing.options import SIZES, option_steps
from llmtutor.experiments.choosing.plan import NAME, RATE_SEED
from llmtutor.experiments.choosing.verdicts import (
    BASELINE,
    SMALL_PART,
    TWIN,
    baseline_loss,
    compute_factor,
    diverged,
    findings,
    losses,
    margin_of,
    nulls,
    pairs,
    points,
    slope,
)
from llmtutor.experiments.study import Record, load_record

FLOPS = {"small": 1e12, "middle": 3e12, "large": 12e12}
NOISE = np.random.default_rng(10).normal(0, 0.004, (3, 5, 9))
GAPS = {
    BASELINE: 0.0,
    TWIN: 0.0,
    "gqa-2": 0.001,
    "gpt2": 0.2,
    "mla": -0.1,
    "no position": 0.013,
    "head lost": 0.05,
}


def made_up(**gaps: Any) -> Record:
    """Runs of all sizes: one power law, known gaps, noise of each run by itself."""
    runs = []
    for i, size in enumerate(FLOPS):
        for j, name in enumerate(GAPS):
            for seed in range(5 if size != "large" else 3):
                loss = 4.0 - 0.06 * math.log(FLOPS[size]) + GAPS[name] + NOISE[i, seed, j]
                settings = {"size": size, "option": name, "lr": 0.1, "seed": seed}
                result = {"bits_per_byte": loss, "train_flops": FLOPS[size] * (1 + (name == "mla"))}
                result["pairs"] = {"right": 60 + seed, "n": 100}
                runs.append({"settings": settings, "result": result})
        settings = {"size": size, "option": BASELINE, "lr": 9.0, "seed": RATE_SEED}
        runs.append({"settings": settings, "result": {"bits_per_byte": None}})
    return Record(NAME, "", {}, "", [], runs)


def changed(record: Record, option: str, seed: int, loss: float | None) -> Record:
    """Another loss for one run of the smallest size; no run at all for −1."""
    wanted = {"size": "small", "option": option, "seed": seed}
    runs = []
    for run in record.runs:
        if wanted.items() <= run["settings"].items():
            if loss == -1:
                continue
            run = {**run, "result": {**run["result"], "bits_per_byte": loss}}
        runs.append(run)
    return Record(NAME, "", {}, "", [], runs)


def by_hand(record: Record, size: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for run in record.runs:
        settings = run["settings"]
        if settings["size"] == size and settings["seed"] != RATE_SEED:
            loss = run["result"]["bits_per_byte"]
            found.setdefault(settings["option"], {})[settings["seed"]] = loss
    return found


def check_verdicts(record: Record, size: str) -> None:
    """By the textbook's two-way table, and Holm's rule in its first form: reject until the first
    that is not. Only options with all seeds, and the baseline and its twin as one row of two."""
    raw = {name: by_seed for name, by_seed in by_hand(record, size).items() if None not in by_seed}
    most = max(len(by_seed) for by_seed in raw.values())
    full = {name: [s[i] for i in sorted(s)] for name, s in raw.items() if len(s) == most > 1}
    if not full.keys() - {BASELINE, TWIN} or BASELINE not in full:
        return
    whole = [run for run in record.runs if run["settings"]["option"] in full]
    found = findings(Record(NAME, "", {}, "", [], whole), size)
    table = np.array([*full.values()])
    base = [name in (BASELINE, TWIN) for name in full]
    left = table - table.mean(1, keepdims=True)
    left[base] = table[base] - table[base].mean()
    left -= left.mean(0)
    assert found.keys() == full.keys() - {BASELINE, TWIN}
    options, seeds = len(found), most
    degrees = table.size - (options + 1) - (seeds - 1)
    p, equal = {}, {}
    loud = {name for name, finding in found.items() if finding.gap.loud}
    noise = (left[[name not in loud for name in full]] ** 2).sum()
    noise /= degrees - len(loud) * (seeds - 1)
    for name, finding in found.items():
        gap, margin = finding.gap, finding.margin
        difference = np.mean(full[name]) - table[base].mean()
        assert gap.difference == pytest.approx(difference, abs=1e-12)
        if name not in loud:
            error = math.sqrt(noise / seeds + noise / (seeds * sum(base)))
            assert gap.error == pytest.approx(error, rel=1e-9)
        one = stats.t(gap.degrees, scale=gap.error)
        p[name] = 2 * one.sf(abs(difference))
        if margin:
            equal[name] = max(one.sf(difference + margin), one.cdf(difference - margin))
    different = told(p)
    for name, finding in found.items():
        sign = "better" if finding.gap.difference < 0 else "worse"
        if equal.get(name, 1) < 0.05:
            wanted = f"{sign}, by little" if name in different else "as good"
        else:
            wanted = sign if name in different else "cannot be told"
        assert finding.verdict == wanted, name


def told(p_values: dict[str, float]) -> set[str]:
    names: set[str] = set()
    for i, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        if p_values[name] >= 0.05 / (len(p_values) - i):
            break
        names.add(name)
    return names


@pytest.mark.parametrize("size", SIZES)
def test_verdicts_on_known_gaps(size: str) -> None:
    record = made_up()
    check_verdicts(record, size)
    verdicts = {name: finding.verdict for name, finding in findings(record, size).items()}
    assert verdicts.keys() == GAPS.keys() - {BASELINE, TWIN}
    assert verdicts["gpt2"] == "worse" and verdicts["mla"] == "better"
    if size != "large":  # three seeds tell less
        assert verdicts["head lost"] == "worse"


def test_the_null_is_not_told_at_any_size() -> None:
    record = made_up()
    found = nulls(record)
    assert list(found) == list(SIZES)
    for size, gap in found.items():
        raw = by_hand(record, size)
        means = [np.mean([*raw[name].values()]) for name in (TWIN, BASELINE)]
        assert gap.difference == pytest.approx(means[0] - means[1], abs=1e-12)
        assert gap.verdict == "not distinguishable" and gap.adjusted_p == gap.p_value


def test_equal_takes_a_margin_and_the_margin_takes_two_sizes() -> None:
    record = made_up()
    for size in SIZES:
        assert slope(record, size) == pytest.approx(-0.06, abs=0.003)
        assert margin_of(record, size) == pytest.approx(0.06 * math.log(SMALL_PART), rel=0.05)
    wide = findings(record, "small")
    assert wide["gqa-2"].verdict == "as good" and not wide["gpt2"].within_margin
    small = [run for run in record.runs if run["settings"]["size"] == "small"]
    alone = Record(NAME, "", {}, "", [], small)
    assert slope(alone, "small") is margin_of(alone, "small") is None
    assert slope(alone, "large") is findings(alone, "small")["gqa-2"].margin is None
    assert findings(alone, "small")["gqa-2"].verdict == "cannot be told"


def test_the_slope_is_that_of_the_curve_at_its_size() -> None:
    """A parabola in ln(compute) has the derivative that it has; two sizes have one slope."""
    record, at = made_up(), {name: math.log(flops / 1e12) for name, flops in FLOPS.items()}
    for run in record.runs:
        settings, x = run["settings"], at[run["settings"]["size"]]
        if settings["seed"] != RATE_SEED:
            run["result"] = run["result"] | {"bits_per_byte": 3 - 0.3 * x + 0.05 * x**2}
    for size, x in at.items():
        assert slope(record, size) == pytest.approx(-0.3 + 0.1 * x)
    two = [run for run in record.runs if run["settings"]["size"] != "large"]
    chord = -0.3 + 0.05 * at["middle"]
    for size in ("small", "middle"):
        assert slope(Record(NAME, "", {}, "", [], two), size) == pytest.approx(chord)


def test_a_gap_in_factors_of_compute() -> None:
    """At a slope of −0.06, twice the compute gains 0.06 ln 2."""
    assert compute_factor(-0.06 * math.log(2), -0.06) == pytest.approx(2)
    assert compute_factor(0.06 * math.log(2), -0.06) == pytest.approx(0.5)
    assert compute_factor(0.0, -0.06) == 1


def test_gaps_stand_at_the_compute_that_the_option_took() -> None:
    found = points(made_up(), "mla")
    assert [point.size for point in found] == list(SIZES)
    assert [point.train_flops for point in found] == [2 * flops for flops in FLOPS.values()]
    assert all(p.interval[0] < p.gap < p.interval[1] for p in found)


def test_what_is_there_so_far_is_read() -> None:
    """A seed that is missing on one side is no pair; one seed is no comparison; one that diverged
    takes its option out; without a twin the baseline stands alone."""
    record = made_up()
    fewer = changed(record, "gqa-2", 2, -1)
    assert findings(fewer, "small")["gqa-2"].gap.n_seeds == 4
    for seed in range(1, 5):
        fewer = changed(fewer, "gqa-2", seed, -1)
    assert "gqa-2" not in findings(fewer, "small")
    lost = changed(record, "gqa-2", 2, None)
    assert losses(lost, "small")["gqa-2"][2] == math.inf
    assert "gqa-2" not in findings(lost, "small") and "mla" in findings(lost, "small")
    assert diverged(lost, "small") == {"gqa-2": 1} and diverged(record, "small") == {}
    one = changed(record, TWIN, 3, -1)
    raw = by_hand(one, "small")
    wanted = mean([*raw[BASELINE].values(), *raw[TWIN].values()])
    assert len(raw[TWIN]) == 4 and baseline_loss(losses(one, "small")) == pytest.approx(wanted)
    assert findings(Record(NAME, "", {}, "", [], []), "small") == {}


def test_minimal_pairs_count_once_whatever_the_seeds() -> None:
    found = pairs(made_up(), "small")["mla"]
    assert (found.right, found.n) == (62, 100)


# On the record -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record(NAME)


@pytest.mark.parametrize("size", SIZES)
def test_verdicts_of_the_record(record: Record, size: str) -> None:
    check_verdicts(record, size)


@pytest.mark.parametrize("size", SIZES)
def test_the_null_of_the_record_is_not_told_and_a_defect_is(record: Record, size: str) -> None:
    assert nulls(record)[size].verdict == "not distinguishable"
    found = findings(record, size)
    if "head lost" in found and found["head lost"].gap.n_seeds == 5:
        assert found["head lost"].verdict == "worse"


def test_every_run_of_the_record_is_on_the_batches_that_its_seed_says(record: Record) -> None:
    """Equal sizes, equal tokens, one thread."""
    for run in record.runs:
        settings, result = run["settings"], run["result"]
        if settings["seed"] == RATE_SEED:
            continue
        size = SIZES[settings["size"]]
        steps = option_steps(settings["option"], size)
        assert result["n_tokens"] == steps * size.batch_size * size.seq_len
        assert result["steps"] == steps == result["curve"]["step"][-1]
    threads = {here["threads"] for here in record.environments}
    assert threads <= {1}
