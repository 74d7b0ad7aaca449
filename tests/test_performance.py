"""The performance page shows what was recorded."""

import importlib.util
import json
import math
import re
import types
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "data" / "results").glob("bench-*.json"))


def extension() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("ext", ROOT / "book" / "_ext" / "measured.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_by_hand() -> None:
    table = extension().rows({"encode_text": {"peer": [2.0, 4.0, 3.0], "ours": [1.5]}})
    (short,) = extension().rows({"step": {"peer": [0.0947, 0.0861]}})
    assert short == ("step", "peer", "90 ms", "86 ms", "95 ms", "1.00")
    assert table == [
        ("encode text", "peer", "3.00 s", "2.00 s", "4.00 s", "1.00"),
        ("encode text", "ours", "1.50 s", "1.50 s", "1.50 s", "0.50"),
    ]


def test_losses_by_hand() -> None:
    table = extension().loss_rows({"nothing": [1.5, 1.7], "Muon": [1.9, 1.8]})
    assert table == [
        ("nothing", "1.600", "1.500", "1.700", "+0.000"),
        ("Muon", "1.850", "1.800", "1.900", "+0.250"),
    ]


def test_growth_and_bytes_by_hand() -> None:
    cached = {"64": [3.0, 1.0, 2.0], "512": [3.3, 2.0, 2.1]}  # +10 %, +100 %, +5 %
    times = {"cached": cached, "uncached": {"64": [1], "512": [9]}}
    growth = {"cached": [0.1, 0.05, 1.0], "uncached": [8, 8, 8]}
    assert extension().growth_rows({"gpt2_batch_8": times}, {"gpt2_batch_8": growth}) == [
        ("work", "by", "at 64 tokens", "at 512 tokens", "growth (95 %)"),
        ("gpt2 batch 8", "cached", "2000.00 ms", "2100.00 ms", "+10.0% (+5.0 to +100.0)"),
        ("gpt2 batch 8", "uncached", "1000.00 ms", "9000.00 ms", "+800.0% (+800.0 to +800.0)"),
    ]
    assert extension().byte_rows({"four": 4096, "one": 1024}) == [
        ("four", "4,096", "1.00"),
        ("one", "1,024", "0.25"),
    ]


def test_bars_by_hand() -> None:
    module = extension()
    groups = module.time_bars({"step": {"peer": [2.0, 4.0, 3.0], "ours": [1.5], "slow": [6.0]}})
    assert groups == [("step", [("peer", 1, "1.00"), ("ours", 0.5, "0.50"), ("slow", 2, "2.00")])]
    html = module.bars(groups, "a <caption>", with_peer=True)
    assert re.findall(r"width:([\d.]+)%", html) == ["31.0", "15.5", "62.0"]
    assert html.count("lt-peer") == 1 and "a &lt;caption&gt;" in html and "<td" in html
    ((_, losses),) = module.loss_bars({"nothing": [1.5, 1.7], "Muon": [1.9], "better": [1.5]})
    assert losses == [("nothing", 0, "+0.000"), ("Muon", 0.3, "+0.300"), ("better", 0, "-0.100")]
    growth = {"a_b": {"cached": (0.07, 0.05, 0.1), "uncached": (7, 6, 8)}}
    assert module.growth_bars(growth) == [("a b", [("cached", 0.07, "+7.0%")])]
    with pytest.raises(ValueError, match="at least 0"):
        module.bars([("", [("x", -1.0, "")])], "")


def test_something_is_recorded() -> None:
    assert RESULTS


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_ratios_are_those_of_the_recorded_times(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert not result["quick"]
    for work, times in result["seconds"].items():
        peer = next(iter(times))
        ours = "onnxruntime" if path.stem == "bench-export" else "ours"
        ratio = median(times[ours]) / median(times[peer])
        assert result[f"{work}_time_to_{peer}"] == pytest.approx(ratio, abs=0.02)
        if (key := f"{work}_compiled_time_to_{peer}") in result:
            ratio = median(times["ours, compiled"]) / median(times[peer])
            assert result[key] == pytest.approx(ratio, abs=0.02)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_the_page_shows_every_benchmark(path: Path) -> None:
    page = (ROOT / "book" / "performance.md").read_text(encoding="utf-8")
    assert f"{{benchmark}} {path.stem.removeprefix('bench-')}" in page


RECORD = ROOT / "data" / "results" / "bench-speedrun.json"


@pytest.mark.skipif(not RECORD.is_file(), reason="the record is not made yet: make bench")
def test_the_record_says_what_its_curves_say() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    (times,) = record["seconds"].values()
    for seed, (base, ours) in enumerate(zip(*record["curves"].values(), strict=True)):
        aim, end = base[-1][2], base[-1][1]
        assert record["final_loss"]["baseline"][seed] == aim
        assert times["baseline"][seed] == pytest.approx(end, abs=1e-4)
        within = [loss for _, seconds, loss in ours if seconds <= end]
        assert record["loss_at_equal_time"][seed] == within[-1]
        first = next(i for i, (_, _, loss) in enumerate(ours) if loss <= aim)
        before = ours[first - 1][1] if first else 0.0
        assert before <= times["ours"][seed] <= ours[first][1]


@pytest.mark.skipif(not RECORD.is_file(), reason="the record is not made yet: make bench")
def test_the_record_meets_its_aims() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["intervals"]["time_ratio"][1] <= 0.25
    assert record["intervals"]["loss_at_equal_time"][1] <= 1.60
    assert record["parameters"]["ours"] <= record["parameters"]["baseline"]


TRAINING = ROOT / "data" / "results" / "bench-training.json"


@pytest.mark.skipif(not TRAINING.is_file(), reason="the record is not made yet: make bench")
def test_compiled_training_meets_its_aims() -> None:
    """1.2 times the speed in all four cases, loading no 3 % of a step, memory below the peer's."""
    record = json.loads(TRAINING.read_text(encoding="utf-8"))
    assert len(record["seconds"]) == 4
    for work in record["seconds"]:
        assert record[f"{work}_compiled_time_to_transformers"] <= 1 / 1.2
        assert record[f"{work}_loading_share"] < 0.03
        for who in ("ours", "ours_compiled"):
            assert record[f"{work}_{who}_peak_mb"] < record[f"{work}_transformers_peak_mb"]


GENERATION = ROOT / "data" / "results" / "bench-generation.json"


def interval_of_a_median(n: int) -> list[float]:
    """Ranks, among n values, that enclose the true median in 95 of 100 cases: the normal curve."""
    half = 1.96 * math.sqrt(n) / 2
    return [n / 2 - half, n / 2 + half]


@pytest.mark.skipif(not GENERATION.is_file(), reason="the record is not made yet: make bench")
def test_the_growth_is_that_of_the_recorded_times() -> None:
    record = json.loads(GENERATION.read_text(encoding="utf-8"))
    assert set(record["seconds_per_token"]) == set(record["seconds"])
    for work, kinds in record["seconds_per_token"].items():
        compiled = ["compiled"] if "ours, compiled" in record["seconds"][work] else []
        assert list(kinds) == [*compiled, "cached", "uncached"]
        for kind, times in kinds.items():
            rounds = zip(times["64"], times["512"], strict=True)
            parts = sorted(b / a - 1 for a, b in rounds)
            middle, low, high = record["growth"][work][kind]
            assert middle == pytest.approx(median(parts), abs=1e-4)
            # The bounds are rounded to four digits, and lie within a rank of those of the curve.
            for bound, rank in zip((low, high), interval_of_a_median(len(parts)), strict=True):
                below = parts[max(0, math.floor(rank) - 2)]
                above = parts[min(len(parts) - 1, math.ceil(rank))]
                assert below - 5e-5 <= bound <= above + 5e-5


@pytest.mark.skipif(not GENERATION.is_file(), reason="the record is not made yet: make bench")
def test_compiled_generation_meets_its_aims() -> None:
    """Twice the speed in all four cases, and for one row a growth that is surely below a tenth."""
    record = json.loads(GENERATION.read_text(encoding="utf-8"))
    aims = [work for work, times in record["seconds"].items() if "ours, compiled" in times]
    assert len(aims) == 4
    for work in aims:
        assert record[f"{work}_compiled_time_to_transformers"] <= 0.5
    for work, kinds in record["growth"].items():
        if "batch_1_" in work:
            assert all(kinds[kind][2] < 0.10 for kind in kinds if kind != "uncached")


@pytest.mark.skipif(not GENERATION.is_file(), reason="the record is not made yet: make bench")
def test_the_recorded_bytes_are_those_of_the_heads() -> None:
    """Two (keys, values), 4 layers, 1,024 tokens, heads of 32 numbers of 4 bytes."""
    record = json.loads(GENERATION.read_text(encoding="utf-8"))
    one = 2 * 4 * 1024 * 32 * 4
    assert record["cache_bytes"] == {
        "multi-head attention": 4 * one,
        **{f"n_kv_heads = {n}": n * one for n in (1, 2, 4)},
    }


WEB = ROOT / "data" / "results" / "bench-web.json"


@pytest.mark.skipif(not WEB.is_file(), reason="the record is not made yet: make bench")
def test_the_page_writes_what_torch_writes_and_sooner_than_its_peers() -> None:
    """The better way of ONNX Runtime is the peer; only weights in blocks of 8 bits may differ."""
    record = json.loads(WEB.read_text(encoding="utf-8"))
    for work, times in record["seconds"].items():
        onnx = {who: median(values) for who, values in times.items() if who.startswith("onnx")}
        assert len(onnx) == 2 and next(iter(times)) == min(onnx, key=lambda who: onnx[who])
        same = record[f"{work}_same_tokens_as_torch"]
        assert set(same) == set(times)
        assert {count for who, count in same.items() if who != "wllama q8_0"} == {100}
        for who, values in times.items():
            if not who.startswith("ours"):
                assert median(times["ours"]) < median(values)


@pytest.mark.skipif(not WEB.is_file(), reason="the record is not made yet: make bench")
def test_a_click_on_the_page_is_light_and_soon_answered() -> None:
    """At most 1.3 bytes for each of the weights in int8, and a second to the first token."""
    record = json.loads(WEB.read_text(encoding="utf-8"))
    counted = record["bytes"]
    assert counted["page, after a click"] <= 1.3 * counted["weights in int8"]
    for place, seconds in record["first_token"].items():
        assert record[f"first_token_{place}_seconds"] == pytest.approx(median(seconds), abs=1e-3)
        assert median(seconds) < 1.0
