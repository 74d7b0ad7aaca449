"""The performance page shows what was recorded."""

import importlib.util
import json
import types
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "data" / "results").glob("bench-*.json"))


def extension() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("ext", ROOT / "book" / "_ext" / "benchmarks.py")
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


def test_something_is_recorded() -> None:
    assert RESULTS


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_ratios_are_those_of_the_recorded_times(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert not result["quick"]
    for work, times in result["seconds"].items():
        peer = next(iter(times))
        ratio = median(times["ours"]) / median(times[peer])
        assert result[f"{work}_time_to_{peer}"] == pytest.approx(ratio, abs=0.02)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_the_page_shows_every_benchmark(path: Path) -> None:
    page = (ROOT / "book" / "performance.md").read_text(encoding="utf-8")
    assert f"{{benchmark}} {path.stem.removeprefix('bench-')}" in page
