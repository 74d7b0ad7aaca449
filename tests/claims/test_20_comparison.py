"""What chapter 20 says of seeds, families of tests and what the runs show."""

import math
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import mean

import nbformat
import numpy as np
import pytest
from scipy import stats

from llmtutor.experiments.choosing.options import OPTIONS, SIZES
from llmtutor.experiments.choosing.plan import RATE_SEED
from llmtutor.experiments.choosing.verdicts import findings
from llmtutor.experiments.study import load_record
from llmtutor.model.accounting import parameters

PAGE = Path(__file__).parents[2] / "book" / "chapters" / "20_comparison.ipynb"
SAME = ("baseline", "baseline again")


# The page's tables, from the raw runs by other means ----------------------------------------------


@cache
def runs() -> dict[str, dict[str, dict[int, dict]]]:
    """Results by size, option and seed."""
    found: dict = defaultdict(lambda: defaultdict(dict))
    for run in load_record("choosing").runs:
        settings = run["settings"]
        if settings["seed"] != RATE_SEED:
            found[settings["size"]][settings["option"]][settings["seed"]] = run["result"]
    return found


def loss(size: str, *options: str) -> float:
    """Mean bits per byte over all runs of these options."""
    return mean(r["bits_per_byte"] for o in options for r in runs()[size][o].values())


def gap(size: str, option: str) -> float:
    return loss(size, option) - loss(size, *SAME)


@cache
def slope(size: str) -> float:
    """Of the parabola through the baseline's means: fitted, and differentiated by hand."""
    x = {s: math.log(next(iter(runs()[s]["baseline"].values()))["train_flops"]) for s in SIZES}
    a, b, _ = np.polyfit([v - x["small"] for v in x.values()], [loss(s, *SAME) for s in SIZES], 2)
    return 2 * a * (x[size] - x["small"]) + b


@cache
def outputs() -> str:
    """All that the page prints, in order."""
    cells = nbformat.read(PAGE, as_version=4).cells
    out = [o for cell in cells if cell.cell_type == "code" for o in cell.outputs]
    return "\n\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in out)


def table(*columns: str) -> list[list[str]]:
    """The first table of the page with these columns, row by row."""
    lines = outputs().splitlines()
    start = next(i for i, line in enumerate(lines) if re.split(r" {2,}", line) == [*columns])
    head = lines[start]
    edges = [0]
    for name in columns[1:]:
        edges.append(head.index("  " + name, edges[-1]) + 2)
    rows = []
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        pieces = zip(edges, [*edges[1:], None], strict=True)
        rows.append([line[a:b].strip() for a, b in pieces])
    return rows


def test_gaps_and_their_worth_at_the_smallest_size() -> None:
    rows = table(
        *("option", "gap", "verdict", "worth, in compute", "operations"),
        "worth / operations",
    )
    assert rows[0][0] == "baseline" and len(rows) == len(OPTIONS) - 2  # the twin is apart
    for option, shown, _, worth, spent, price in rows[1:]:
        assert float(shown.split()[0]) == pytest.approx(gap("small", option), abs=6e-4), option
        factor = math.exp(gap("small", option) / slope("small"))
        assert float(worth.split()[0]) == pytest.approx(factor, rel=0.02), option
        ours, theirs = (runs()["small"][name][0]["train_flops"] for name in (option, "baseline"))
        assert float(spent) == pytest.approx(ours / theirs, abs=6e-3), option
        assert float(price) == pytest.approx(factor * theirs / ours, rel=0.03), option


def test_gaps_at_all_sizes() -> None:
    rows = table("option", "size", "gap", "verdict", "worth, in compute", "moved")
    option, before = "", math.nan
    for name, size, shown, _, factor, moved in rows:
        option, before = (name, math.nan) if name else (option, before)
        found = gap(size, option)
        assert float(shown.split()[0]) == pytest.approx(found, abs=6e-4), option
        assert float(factor) == pytest.approx(worth(size, option), abs=0.006), option
        assert math.isnan(before) == (not moved)
        if moved:
            assert float(moved.split()[0]) == pytest.approx(found - before, abs=6e-4), option
        before = found
    assert {size for _, size, *_ in rows} == set(SIZES)


def test_slopes_and_margins_are_those_of_the_runs() -> None:
    rows = table(
        *("size", "slope, for each factor e", "a gap of -0.1 is worth", "one of -0.02"),
        "a quarter more is worth",
    )
    for size, per_e, worth, _, margin in rows:
        assert float(per_e) == pytest.approx(slope(size), abs=6e-4)
        assert float(worth) == pytest.approx(math.exp(-0.1 / slope(size)), rel=0.01)
        assert float(margin) == pytest.approx(-slope(size) * math.log(1.25), abs=6e-4)


def test_costs_are_means_of_ratios_over_the_rounds() -> None:
    columns = ("training", "decoding", "cache", "peak memory")
    figures = ("train_tokens_per_second", "decode_tokens_per_second", "cache_bytes", "peak_bytes")
    logs: dict = defaultdict(lambda: defaultdict(list))
    for run in load_record("choosing-cost").runs:
        for figure in figures:
            ours, theirs = (run["result"][side][figure] for side in ("option", "baseline"))
            logs[run["settings"]["option"]][figure].append(math.log(ours / theirs))
    rows = table("option", "bits per byte", "minimal pairs", *columns)
    for option, bits, _, *cells in rows:
        names = SAME if option == "baseline" else (option,)
        assert float(bits) == pytest.approx(loss("small", *names), abs=6e-4)
        for figure, cell in zip(figures, cells, strict=True):
            if cell:
                factor = math.exp(mean(logs[option][figure]))
                assert float(cell.split()[0]) == pytest.approx(factor, abs=6e-3), (option, figure)


# What the text says -------------------------------------------------------------------------------


def test_the_smallest_of_ten_p_values_is_below_three_hundredths_in_a_fifth_of_studies() -> None:
    random = np.random.default_rng(0)
    baseline, variants = random.normal(size=(4000, 1, 8)), random.normal(size=(4000, 10, 8))
    smallest = stats.ttest_rel(variants, baseline, axis=2).pvalue.min(1)
    assert 0.18 < (smallest <= 0.03).mean() < 0.23


def test_sizes_in_the_text() -> None:
    small, large = (SIZES[name] for name in ("small", "large"))
    assert parameters(small.baseline).total == 135_600
    assert small.steps * small.batch_size * small.seq_len == pytest.approx(1.4e6, rel=0.04)
    assert 7e9 / parameters(large.baseline).total == pytest.approx(20_000, rel=0.01)
    assert all(size.seq_len == 256 and size.vocab_size == 512 for size in SIZES.values())


def test_the_noise_of_many_options_asks_for_smaller_gaps() -> None:
    """Four numbers ask for 2.78 standard errors, a hundred and thirty for 1.98."""
    assert [round(float(stats.t.isf(0.025, f)), 2) for f in (4, 130)] == [2.78, 1.98]


@cache
def verdicts(size: str) -> dict[str, str]:
    return {name: found.verdict for name, found in findings(load_record("choosing"), size).items()}


def test_mamba_keeps_most_of_its_gain_without_its_convolution() -> None:
    without = gap("small", "mamba, no convolution") / gap("small", "mamba")
    attention = gap("small", "convolution") / gap("small", "mamba, no convolution")
    assert 0.7 < without < 0.8 and 0.8 < attention < 0.95


def test_what_has_nothing_to_do_with_near_tokens_gains_as_much() -> None:
    rows = {name: gap("small", name) for name in ("muon", "post-norm", "gated")}
    assert max(rows.values()) < -0.1 and rows["muon"] == pytest.approx(-0.20, abs=0.01)
    assert all(verdicts("small")[name] == "better" for name in rows)
    near = ("mamba", "s4d", "deltanet", "convolution", "t5", "shaw", "alibi", "window 3 : 1, sinks")
    assert all(verdicts("small")[name].startswith("better") for name in near)


def test_positions_are_most_of_what_gpt2_lacks() -> None:
    assert 0.75 < gap("small", "learned") / gap("small", "gpt2") < 0.9
    assert gap("middle", "gpt2") > 0.3 and gap("small", "gpt2") > 0.25


def test_what_is_as_good_and_what_is_worse() -> None:
    same = ("gqa-2", "mqa", "layernorm", "qk-norm", "head missing")
    assert {verdicts("small")[name] for name in same} == {"as good"}
    others = [verdicts("small")[name] for name in ("gelu", "squared relu", "relu")]
    assert others == ["worse, by little", "worse, by little", "worse"]
    assert verdicts("small")["differential"].startswith("worse")
    assert verdicts("small")["differential v2"].startswith("better")
    flops = {n: runs()["small"][n][0]["train_flops"] for n in ("differential", "differential v2")}
    factors = [f / runs()["small"]["baseline"][0]["train_flops"] for f in flops.values()]
    assert factors == pytest.approx([1.42, 1.42], abs=0.005)
    assert math.exp(gap("small", "differential v2") / slope("small")) < 1.3


def worth(size: str, option: str) -> float:
    """The factor of compute that the baseline would need, at its slope there."""
    return math.exp(gap(size, option) / slope(size))


def test_gaps_shrink_in_bits_and_not_in_compute() -> None:
    factors = {
        "mamba": [2.3, 2.1, 2.8],
        "moe, equal active": [1.4, 1.4, 1.8],
        "convolution": [1.7, 1.4, 1.5],
    }
    for option, said in factors.items():
        small, middle, large = (gap(size, option) for size in SIZES)
        assert small < middle < large < 0, option
        assert [round(worth(size, option), 1) for size in SIZES] == said
        assert all(verdicts(size)[option] == "better" for size in SIZES)
    for option in ("gated", "muon"):
        assert gap("small", option) < gap("middle", option) < 0
        assert all(verdicts(size)[option] == "better" for size in ("small", "middle"))
    for size, verdict in zip(SIZES, ("better, by little", "as good", "as good"), strict=True):
        assert verdicts(size)["mla"] == verdict


def test_deltanet_keeps_its_gap_with_a_rate_of_its_own() -> None:
    moved, own = "deltanet 3 : 1", "deltanet 3 : 1, retuned"
    assert verdicts("middle")[moved] == "as good" and verdicts("middle")[own] == "better"
    assert [round(f, 1) for f in (worth("small", moved), worth("middle", own))] == [1.3, 1.3]
    assert round(worth("large", own), 1) == 1.7
    assert verdicts("large")[own] == "better" and verdicts("large")[moved] == "as good"


def test_sizes_span_a_factor_of_six_in_compute() -> None:
    small, large = (runs()[size]["baseline"][0]["train_flops"] for size in ("small", "large"))
    assert 5.5 < large / small < 6.5


def test_the_known_gap_is_found_as_large_as_the_slope_says() -> None:
    spent = runs()["small"]["a quarter more"][0]["train_flops"]
    factor = spent / runs()["small"]["baseline"][0]["train_flops"]
    assert factor == pytest.approx(1.25, abs=0.005)
    assert verdicts("small")["a quarter more"] == "better"
    called = math.exp(gap("small", "a quarter more") / slope("small"))
    assert round(called, 2) == 1.28


def test_no_model_of_the_smallest_size_is_past_the_trigram_of_the_page() -> None:
    shown = re.search(r"Level line “trigram” at (\d\.\d+)", outputs())
    assert shown and float(shown[1]) < min(loss("small", name) for name in runs()["small"])
